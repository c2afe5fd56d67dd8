"""Members of an ensemble that share their network: the first of them adapts inputs, the last gives each its outputs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from poise._random import Key
from poise.nn._linear import uniform_within
from poise.nn._stochastic import fresh_key


class MemberAdapter(nn.Module):
    """x_bk = r_k ∘ x_b: every row once for each of K members, each with its own view of the features.

    The r_k begin as N(1, spread²): members that see nearly the same features help each other to learn, and part as they
    do. What follows works on B · K rows, that of member k of row b at b · K + k.

    Args:
        num_features: D, ≥ 1.
        num_members: K, ≥ 1.
        spread: How far members begin apart, ≥ 0.
        key: Names the first r; None takes one from torch's global generator.

    Shape:
        (B, D) in, (B · K, D) out. weight: (K, D).

    Example:
        >>> MemberAdapter(3, num_members=4)(torch.zeros(5, 3)).shape
        torch.Size([20, 3])

    Reference: Gorishniy et al., "TabM: advancing tabular deep learning with parameter-efficient ensembling", ICLR 2025
    (the variant with one adapter, which begins with random signs there).
    """

    def __init__(self, num_features: int, *, num_members: int, spread: float = 0.25, key: Key | None = None) -> None:
        super().__init__()
        drawn = 1 + spread * (key or fresh_key()).normal(num_members, num_features, dtype=torch.float64)
        self.weight = nn.Parameter(drawn.to(torch.get_default_dtype()))

    def forward(self, x: Tensor) -> Tensor:
        """The rows of all members."""
        return (x.unsqueeze(-2) * self.weight).flatten(-3, -2)

    def extra_repr(self) -> str:
        """As torch prints it."""
        return f"num_features={self.weight.shape[1]}, num_members={len(self.weight)}"


class MemberHeads(nn.Module):
    """y_bk = W_k x_bk + b_k: a linear layer for each of K members, whose initial weights are as those of `Linear`.

    Args:
        in_features: D, ≥ 1.
        out_features: C, ≥ 1.
        num_members: K, ≥ 1.
        key: Names the initial weights; None takes one from torch's global generator.

    Shape:
        (B · K, D) in, (B, K, C) out. weight: (K · C, D), the rows of member k from k · C on. bias: (K · C,).

    Example:
        >>> MemberHeads(3, 2, num_members=4)(torch.zeros(20, 3)).shape
        torch.Size([5, 4, 2])

    Reference: Gorishniy et al., "TabM: advancing tabular deep learning with parameter-efficient ensembling", ICLR 2025.
    """

    def __init__(self, in_features: int, out_features: int, *, num_members: int, key: Key | None = None) -> None:
        super().__init__()
        key, bound = key or fresh_key(), 1 / math.sqrt(max(1, in_features))
        self.num_members, rows = num_members, num_members * out_features
        self.weight = nn.Parameter(uniform_within(key.stream("weight"), bound, rows, in_features))
        self.bias = nn.Parameter(uniform_within(key.stream("bias"), bound, rows))

    def forward(self, x: Tensor) -> Tensor:
        """The outputs of all members."""
        members, depth = self.num_members, x.shape[-1]
        rows, weight = x.reshape(-1, members, depth), self.weight.view(members, -1, depth)
        out: Tensor = torch.einsum("bkd,kcd->bkc", rows, weight) + self.bias.view(members, -1)
        return out

    def extra_repr(self) -> str:
        """As torch prints it."""
        rows, columns = self.weight.shape
        return f"in_features={columns}, out_features={rows // self.num_members}, num_members={self.num_members}"
