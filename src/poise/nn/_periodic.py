"""Numbers as waves."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from poise._random import Key
from poise.nn._linear import uniform_within
from poise.nn._stochastic import fresh_key


class PeriodicEmbedding(nn.Module):
    """z_d = A_d (cos 2π c_d x_d, sin 2π c_d x_d) + a_d: each number as a mixture of waves of its own, all learned.

    The frequencies c_d begin as N(0, scale²), A_d and a_d uniform in ± 1 / sqrt(2 F). A network reads z beside x, which
    has what waves cannot tell: on which side, and how far out.

    Args:
        num_features: D, ≥ 1.
        num_frequencies: F of each feature, ≥ 1.
        out_features: E, what the waves of a feature become, ≥ 1.
        scale: Standard deviation of the first frequencies, in periods per unit of x, ≥ 0.
        key: Names the initial weights; None takes one from torch's global generator.

    Shape:
        (B, D) in, (B, D · E) out. frequencies: (D, F). weight: (D, E, 2 F). bias: (D, E).

    Example:
        >>> import torch
        >>> PeriodicEmbedding(3, num_frequencies=8, out_features=2)(torch.zeros(5, 3)).shape
        torch.Size([5, 6])

    Reference: Gorishniy et al., "On embeddings for numerical features in tabular deep learning", NeurIPS 2022.
    Holzmüller et al., "Better by default", NeurIPS 2024 (no nonlinearity after A, and x beside z).
    """

    def __init__(
        self, num_features: int, *, num_frequencies: int = 16, out_features: int = 3, scale: float = 0.5,
        key: Key | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        key, bound = key or fresh_key(), 1 / math.sqrt(2 * num_frequencies)
        first = key.stream("frequencies").normal(num_features, num_frequencies, dtype=torch.float64) * scale
        self.frequencies = nn.Parameter(first.to(torch.get_default_dtype()))
        sizes = num_features, out_features, 2 * num_frequencies
        self.weight = nn.Parameter(uniform_within(key.stream("weight"), bound, *sizes))
        self.bias = nn.Parameter(uniform_within(key.stream("bias"), bound, *sizes[:2]))

    @property
    def out_features(self) -> int:
        """D · E."""
        return self.bias.numel()

    def forward(self, x: Tensor) -> Tensor:
        """The mixtures of all features, side by side."""
        turns = x.unsqueeze(-1) * self.frequencies
        # Whole turns change nothing but the digits that are left for the rest.
        angle = 2 * math.pi * (turns - turns.detach().round())
        waves = torch.cat((angle.cos(), angle.sin()), dim=-1)
        return (torch.einsum("bdf,def->bde", waves, self.weight) + self.bias).flatten(1)

    def extra_repr(self) -> str:
        """As torch prints it."""
        features, out, waves = self.weight.shape
        return f"num_features={features}, num_frequencies={waves // 2}, out_features={out}"
