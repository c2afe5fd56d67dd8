"""A linear layer with named initial weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from poise._random import Key
from poise.nn._stochastic import fresh_key


class Linear(nn.Module):
    """y = x Wᵀ + b; a drop-in for `torch.nn.Linear` whose initial weights are named by a key.

    W and b are uniform in ± 1 / sqrt(in_features), as torch's are.

    Args:
        in_features: D, ≥ 1.
        out_features: C, ≥ 1.
        bias: Whether there is a b.
        key: Names the initial weights; None takes one from torch's global generator.

    Shape:
        (..., D) in, (..., C) out. weight: (C, D). bias: (C,).

    Example:
        >>> import torch
        >>> Linear(3, 2)(torch.zeros(5, 3)).shape
        torch.Size([5, 2])

    Reference: He et al., "Delving deep into rectifiers", ICCV 2015.
    """

    bias: nn.Parameter | None

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, key: Key | None = None) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        key, bound = key or fresh_key(), 1 / math.sqrt(max(1, in_features))
        self.weight = nn.Parameter(uniform_within(key.stream("weight"), bound, out_features, in_features))
        drawn = uniform_within(key.stream("bias"), bound, out_features) if bias else None
        self.register_parameter("bias", None if drawn is None else nn.Parameter(drawn))

    def forward(self, x: Tensor) -> Tensor:
        """x Wᵀ + b."""
        return nn.functional.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """As torch prints it."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def uniform_within(key: Key, bound: float, *shape: int) -> Tensor:
    """Uniform numbers in ± bound, in torch's default dtype."""
    return (2 * key.uniform(*shape, dtype=torch.float64) - 1).mul_(bound).to(torch.get_default_dtype())
