"""Nonlinearities by name, and nonlinearities whose strength is learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poise._checks import check_choice

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "selu": nn.SELU,
    "tanh": nn.Tanh,
    "mish": nn.Mish,
    "identity": nn.Identity,
}


def make_activation(name: str) -> nn.Module:
    """The nonlinearity called `name`, with torch's defaults.

    Raises:
        ConfigError: If there is none of that name.

    Example:
        >>> make_activation("relu")
        ReLU()
    """
    check_choice("activation", name, tuple(ACTIVATIONS))
    return ACTIVATIONS[name]()


class ParametricActivation(nn.Module):
    """y_j = x_j + α_j (act(x_j) - x_j), α_j = 1 + rate · weight_j: how much each unit bends is learned.

    It begins as the nonlinearity itself, weight = 0. The rate makes α learn faster or slower than other weights.

    Args:
        name: Of the nonlinearity.
        num_features: D, ≥ 1.
        rate: Factor on what is learned, > 0.

    Shape:
        (..., D) in, the same out. weight: (D,).

    Raises:
        ConfigError: If there is no nonlinearity of that name.

    Example:
        >>> layer = ParametricActivation("relu", 2, rate=1.0)
        >>> _ = layer.weight.data.copy_(torch.tensor([0.0, -0.5]))
        >>> layer(torch.tensor([[-1.0, -1.0]])).tolist()
        [[0.0, -0.5]]

    Reference: Holzmüller et al., "Better by default", NeurIPS 2024.
    """

    def __init__(self, name: str, num_features: int, *, rate: float = 8.0) -> None:
        super().__init__()
        self.activation, self.name, self.rate = make_activation(name), name, rate
        self.weight = nn.Parameter(torch.zeros(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """x, bent by as much as was learned."""
        out: Tensor = x + (1 + self.rate * self.weight) * (self.activation(x) - x)
        return out

    def extra_repr(self) -> str:
        """As torch prints it."""
        return f"name={self.name!r}, num_features={len(self.weight)}, rate={self.rate}"
