"""A learned scale for each feature."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FeatureScale(nn.Module):
    """y_j = (1 + rate · weight_j) x_j: which features count, and how much, is learned, and learned fast.

    It begins as the identity, weight = 0. With Adam, every weight moves by about the learning rate a step; the rate
    lets a scale move by many times that, so that useless features are gone before the layers behind adapt to them.

    Args:
        num_features: D, ≥ 0.
        rate: Factor on what is learned, > 0.

    Shape:
        (..., D) in, the same out. weight: (D,).

    Example:
        >>> FeatureScale(3)(torch.ones(2, 3)).shape
        torch.Size([2, 3])

    Reference: Holzmüller et al., "Better by default", NeurIPS 2024 (scaling layer).
    """

    def __init__(self, num_features: int, *, rate: float = 10.0) -> None:
        super().__init__()
        self.rate = rate
        self.weight = nn.Parameter(torch.zeros(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """The scaled features."""
        return x * (1 + self.rate * self.weight)

    def extra_repr(self) -> str:
        """As torch prints it."""
        return f"num_features={len(self.weight)}, rate={self.rate}"
