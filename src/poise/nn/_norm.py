"""Batch and layer normalization."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poise._checks import Interval, check_integer, check_real

_POSITIVE = Interval(0, low_open=True)
_MOMENTUM = Interval(0, 1)


class BatchNorm(nn.Module):
    """y = (x - mean) / sqrt(var + eps) · weight + bias, mean and var over the rows of the batch.

    In training the batch's mean and biased variance normalize, and the running statistics move:
    running ← (1 - momentum) · running + momentum · batch, with the unbiased variance, as in torch. In eval mode the
    running statistics normalize. A single row has no variance: in training it is normalized like in eval mode and
    moves nothing. With `weight` = the batch's standard deviation and `bias` = its mean it leaves that batch as it is.

    Args:
        num_features: D, ≥ 1.
        eps: Added to the variance, > 0.
        momentum: Weight of the new batch, in [0, 1].
        affine: Whether weight and bias exist.
        ghost_size: Rows of a ghost batch, 0 for none. A batch of B rows is dealt into max(1, B // ghost_size) ghosts
            whose sizes differ by at most one, each with statistics of its own.

    Shape:
        (B, D) in, the same out. weight, bias, running_mean, running_var: (D,).

    Raises:
        ConfigError: If a setting is out of range.

    Example:
        >>> import torch
        >>> BatchNorm(1, affine=False, eps=1e-12)(torch.tensor([[1.0], [3.0]])).flatten()
        tensor([-1.,  1.])

    Reference: Ioffe and Szegedy, "Batch normalization", ICML 2015. Hoffer et al., "Train longer, generalize better",
    NeurIPS 2017 (ghost batches).
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self, num_features: int, *, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True, ghost_size: int = 0
    ) -> None:
        super().__init__()
        check_integer("num_features", num_features, Interval(1))
        check_real("eps", eps, _POSITIVE)
        check_real("momentum", momentum, _MOMENTUM)
        check_integer("ghost_size", ghost_size, Interval(0))
        self.num_features, self.eps, self.momentum, self.ghost_size = num_features, eps, momentum, ghost_size
        self.register_parameter("weight", nn.Parameter(torch.ones(num_features)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(num_features)) if affine else None)
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        """The normalized batch."""
        if not self.training or len(x) == 1:
            return self._normalize(x, training=False)
        self.num_batches_tracked += 1
        ghosts = self._ghosts(x)
        if len(ghosts) == 1:
            return self._normalize(x, training=True)
        with torch.no_grad():
            self._track(ghosts)
        return torch.cat([self._normalize(ghost, training=True, track=False) for ghost in ghosts])

    def _ghosts(self, x: Tensor) -> tuple[Tensor, ...]:
        number = max(1, len(x) // self.ghost_size) if self.ghost_size else 1
        # A ghost of one row would have no variance.
        return torch.tensor_split(x, max(1, min(number, len(x) // 2)))

    def _normalize(self, x: Tensor, *, training: bool, track: bool = True) -> Tensor:
        mean, var = (self.running_mean, self.running_var) if track else (None, None)
        return nn.functional.batch_norm(x, mean, var, self.weight, self.bias, training, self.momentum, self.eps)

    def _track(self, ghosts: tuple[Tensor, ...]) -> None:
        moments = [torch.var_mean(ghost, dim=0) for ghost in ghosts]
        means, variances = (torch.stack(parts).mean(0) for parts in ([m for _, m in moments], [v for v, _ in moments]))
        # Not `lerp_`, for which `torch.vmap` has no rule.
        self.running_mean.copy_(torch.lerp(self.running_mean, means, self.momentum))
        self.running_var.copy_(torch.lerp(self.running_var, variances, self.momentum))

    def extra_repr(self) -> str:
        """As torch prints it."""
        ghost = f", ghost_size={self.ghost_size}" if self.ghost_size else ""
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}{ghost}"


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
