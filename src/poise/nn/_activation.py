"""Nonlinearities by name."""

from __future__ import annotations

from torch import nn

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
