"""Normalization, nonlinearity and dropout in one layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poise._checks import Interval, check_choice, check_integer, check_real
from poise._errors import ConfigError
from poise._random import Key
from poise.kernels import ops
from poise.kernels.running import move_running
from poise.nn._activation import ACTIVATIONS, make_activation
from poise.nn._repeated import is_repeated
from poise.nn._stochastic import Stochastic

_PROBABILITY = Interval(0, 1, high_open=True)
_POSITIVE = Interval(0, low_open=True)
_MOMENTUM = Interval(0, 1)


class NormActDropout(Stochastic):
    """y = dropout(act((x - mean) / sqrt(var + eps) · weight + bias)), read twice and written once.

    A drop-in for `nn.Sequential(BatchNorm1d(C), ReLU(), Dropout(p))`, or with BatchNorm2d and so on, whose backward
    pass keeps nothing but x and the statistics: masks and slopes are computed again. With norm="batch", training
    normalizes by the batch's mean and biased variance, which move the running statistics,
    running ← (1 - momentum) · running + momentum · batch with the unbiased variance, as in torch; eval mode normalizes
    by the running statistics. A channel with a single value has no variance: in training it is normalized like in eval
    mode and moves nothing. Norms "layer" and "none" are the same in both modes. Nothing is dropped in eval mode.

    On a CPU, outputs and gradients of 8 to 64 MiB take the memory that earlier ones left. Up to eight blocks are kept
    for that, since clearing fresh memory takes as long as the layer.

    `torch.compile` makes a new graph for every step, up to its limit, unless
    `torch._dynamo.config.allow_unspec_int_on_nn_module` lets it see that steps are numbers that change.

    Args:
        num_features: C, ≥ 1.
        p: Drop probability, in [0, 1); may be set anew between steps.
        activation: relu, leaky_relu, gelu, silu, selu, tanh, mish or identity, with torch's defaults.
        norm: "batch", "layer" (over the channels of each position) or "none".
        eps: Added to the variance, > 0.
        momentum: Weight of the new batch, in [0, 1].
        affine: Whether weight and bias exist.
        key: Names the masks; None takes one from torch's global generator.

    Shape:
        (N, C) or (N, C, ...) in, the same out. Statistics are over N and all positions, weight, bias, running_mean and
        running_var are (C,), so that a state_dict is that of torch's batch norm. Channels-last memory is read as it is,
        other images are copied.

    Raises:
        ConfigError: If a setting is out of range, or x has another number of channels.

    Example:
        >>> layer = NormActDropout(2, p=0.5, key=Key(0)).train()
        >>> layer(torch.randn(64, 2)).shape
        torch.Size([64, 2])
        >>> _ = layer.load_state_dict(nn.BatchNorm1d(2).state_dict())

    Reference: Ioffe and Szegedy, "Batch normalization", ICML 2015. Srivastava et al., "Dropout", JMLR 15, 2014.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self, num_features: int, p: float = 0.5, *, activation: str = "relu", norm: str = "batch", eps: float = 1e-5,
        momentum: float = 0.1, affine: bool = True, key: Key | None = None,
    ) -> None:  # fmt: skip
        super().__init__(key)
        check_integer("num_features", num_features, Interval(1))
        check_real("p", p, _PROBABILITY)
        check_choice("activation", activation, tuple(ACTIVATIONS))
        check_choice("norm", norm, ops.NORMS)
        check_real("eps", eps, _POSITIVE)
        check_real("momentum", momentum, _MOMENTUM)
        self.num_features, self.p, self.activation, self.norm = num_features, p, activation, norm
        self.eps, self.momentum = eps, momentum
        self.register_parameter("weight", nn.Parameter(torch.ones(num_features)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(num_features)) if affine else None)
        tracked = norm == "batch"
        self.register_buffer("running_mean", torch.zeros(num_features) if tracked else None)
        self.register_buffer("running_var", torch.ones(num_features) if tracked else None)
        self.register_buffer("num_batches_tracked", torch.tensor(0) if tracked else None)

    def is_active(self) -> bool:
        """Whether p > 0."""
        return self.p > 0

    def perturb(self, x: Tensor, key: Key) -> Tensor:
        """The whole chain with dropout."""
        return self._chain(x, key, self.p)

    def forward(self, x: Tensor) -> Tensor:
        """Normalized, activated and, in training, with dropout; the same shape."""
        if x.ndim < 2 or x.shape[1] != self.num_features:
            raise ConfigError(f"x must be (N, {self.num_features}, ...), but got shape {tuple(x.shape)}.")
        if self.is_drawing:
            return super().forward(x)
        if torch.compiler.is_exporting() and not self.training:
            return self._exported(x)
        return self._chain(x, Key(0), 0.0)

    def _exported(self, x: Tensor) -> Tensor:
        """The chain in eval mode by layers of torch, since other runtimes have no kernels of ours."""
        if self.norm == "layer":
            rows = nn.functional.layer_norm(x.movedim(1, -1), (self.num_features,), self.weight, self.bias, self.eps)
            z = rows.movedim(-1, 1)
        else:
            mean, var, eps = self.running_mean, self.running_var, self.eps
            if mean is None or var is None:
                mean, var, eps = x.new_zeros(self.num_features), x.new_ones(self.num_features), 0.0
            z = nn.functional.batch_norm(x, mean, var, self.weight, self.bias, False, 0.0, eps)
        y: Tensor = make_activation(self.activation)(z)
        return y

    def _chain(self, x: Tensor, key: Key, p: float) -> Tensor:
        rows = x if x.ndim == 2 else x.movedim(1, -1).contiguous()
        num_rows = x.numel() // self.num_features
        trains = self.training and num_rows > 1
        mean, rstd = (None, None) if trains else self._running()
        draws = ops.settings(key.seed, key.step, p, self.eps, x.device)
        y, mean, rstd = ops.layer(rows, self.weight, self.bias, mean, rstd, draws, self.norm, self.activation)
        if trains and not is_repeated():
            self._track(mean[0], rstd[0], num_rows)
        return y if x.ndim == 2 else y.movedim(-1, 1)

    def _running(self) -> tuple[Tensor | None, Tensor | None]:
        if self.running_mean is None or self.running_var is None:
            return None, None
        return self.running_mean, (self.running_var + self.eps).rsqrt()

    def _track(self, mean: Tensor, rstd: Tensor, num_rows: int) -> None:
        running_mean, running_var, count = self.running_mean, self.running_var, self.num_batches_tracked
        if running_mean is None or running_var is None or count is None:
            return
        count.add_(1)
        move_running(mean, rstd, running_mean, running_var, self.eps, self.momentum, num_rows)

    def extra_repr(self) -> str:
        """As torch prints it."""
        return (
            f"{self.num_features}, p={self.p}, activation={self.activation!r}, norm={self.norm!r}, eps={self.eps}, "
            f"momentum={self.momentum}"
        )
