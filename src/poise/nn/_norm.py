"""Layer normalization."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poise._checks import Interval, check_integer, check_real

_POSITIVE = Interval(0, low_open=True)


class LayerNorm(nn.Module):
    """y = (x - mean) / sqrt(var + eps) · weight + bias, mean and biased variance over the features of each row.

    The same in training and eval mode.

    Args:
        num_features: D, ≥ 1.
        eps: Added to the variance, > 0.
        affine: Whether weight and bias exist.

    Shape:
        (..., D) in, the same out. weight, bias: (D,).

    Raises:
        ConfigError: If a setting is out of range.

    Example:
        >>> import torch
        >>> LayerNorm(2, eps=1e-12)(torch.tensor([[1.0, 3.0]])).detach()
        tensor([[-1.,  1.]])

    Reference: Ba, Kiros, Hinton, "Layer normalization", 2016.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, num_features: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        check_integer("num_features", num_features, Interval(1))
        check_real("eps", eps, _POSITIVE)
        self.num_features, self.eps = num_features, eps
        self.register_parameter("weight", nn.Parameter(torch.ones(num_features)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(num_features)) if affine else None)

    def forward(self, x: Tensor) -> Tensor:
        """The normalized rows."""
        return nn.functional.layer_norm(x, (self.num_features,), self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """As torch prints it."""
        return f"{self.num_features}, eps={self.eps}"
