"""Normalization, nonlinearity and dropout in one kernel, where they follow each other in a training pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from poise.kernels import ops
from poise.nn import ACTIVATIONS, BatchNorm, Dropout, LayerNorm

_NAMES = {kind: name for name, kind in ACTIVATIONS.items()}
_SETTINGS = (torch.int64, torch.int64, torch.float64, torch.bool)  # key, step, p, and whether to drop
Step = Callable[..., Tensor]


def fuse(module: nn.Module) -> nn.Module:
    """`module` with the same tensors by the same names, whose `nn.Sequential`s run chains of layers in one kernel.

    In training, a chain moves no running statistics. In eval mode all is as before but for layers within `evaluating`.
    """
    for name, child in module.named_children():
        setattr(module, name, fuse(child))
    return _Fused(module) if type(module).forward is nn.Sequential.forward else module


def chains_of(module: nn.Module) -> list[Chain]:
    """The chains that `fuse` has made."""
    steps = [step for one in module.modules() if isinstance(one, _Fused) for step in one.steps]
    return [step for step in steps if isinstance(step, Chain)]


@contextmanager
def evaluating(module: nn.Module, *, measure: bool) -> Iterator[None]:
    """Within it, eval passes too run chains in one kernel.

    Args:
        module: From `fuse`.
        measure: Whether batch normalizations normalize by the mean and variance of what they are given, and keep these,
            instead of by what they have kept: for a pass of all rows.
    """
    fused = [one for one in module.modules() if isinstance(one, _Fused)]
    for one in fused:
        one.evaluation = "measure" if measure else "kept"
    try:
        yield
    finally:
        for one in fused:
            one.evaluation = ""


class _Fused(nn.Module):
    """Runs its children one after the other, and chains of them at once."""

    def __init__(self, sequence: nn.Module) -> None:
        super().__init__()
        for name, child in sequence.named_children():
            self.add_module(name, child)
        self.training = sequence.training
        self.steps: list[Step] = _steps(list(sequence.children()))
        self.evaluation = ""

    def forward(self, x: Tensor) -> Tensor:
        """What the last child returns."""
        mode = "train" if self.training else self.evaluation
        for step in self.steps if mode else self.children():
            x = step(x, mode) if isinstance(step, Chain) else step(x)
        return x


def _steps(layers: Sequence[nn.Module]) -> list[Step]:
    steps: list[Step] = []
    at = 0
    while at < len(layers):
        norm = layers[at] if isinstance(layers[at], BatchNorm | LayerNorm) else None
        after = at + (norm is not None)
        activation = layers[after] if after < len(layers) and type(layers[after]) in _NAMES else None
        drop = layers[after + 1] if activation is not None and after + 1 < len(layers) else None
        drop = drop if type(drop) is Dropout else None
        is_ghostly = isinstance(norm, BatchNorm) and norm.ghost_size > 0
        if activation is None or is_ghostly or (norm is None and drop is None):
            steps.append(layers[at])
            at += 1
        else:
            steps.append(Chain(norm, activation, drop))
            at = after + 1 + (drop is not None)
    return steps


class Chain:
    """y = dropout(act(norm(x))) by `poise.kernels.ops`.

    Args:
        norm: BatchNorm without ghosts, LayerNorm, or None.
        activation: One of `ACTIVATIONS`.
        drop: Where the dropout's strength and key are, or None.
    """

    def __init__(self, norm: nn.Module | None, activation: nn.Module, drop: nn.Module | None) -> None:
        self.norm, self.activation, self.drop = norm, activation, drop
        self.kind = {BatchNorm: "batch", LayerNorm: "layer"}.get(type(norm), "none")
        self.supply: Iterator[tuple[Tensor, ...]] | None = None

    def __call__(self, x: Tensor, mode: str) -> Tensor:
        """The chain for the x, (B, D) or more axes, of one variant.

        Args:
            x: From the step before.
            mode: "train", "measure" or "kept".
        """
        key, step, p, on = (one[None] for one in self._settings(x.device, mode))
        norm = self.norm
        if x.ndim != 2 or (self.kind == "batch" and len(x) == 1):
            y: Tensor = self.activation(x if norm is None else norm(x))
            return ops.dropout(y[None], key, step, p, on).squeeze(0) if mode == "train" else y
        weight = bias = mean = rstd = None
        eps = 1.0
        if isinstance(norm, BatchNorm | LayerNorm):
            weight, bias = (None if one is None else one[None] for one in (norm.weight, norm.bias))
            eps = norm.eps
        if isinstance(norm, BatchNorm) and mode == "kept":
            mean, rstd = norm.running_mean[None], (norm.running_var + eps).rsqrt()[None]
        stabilizer = torch.full((1,), eps, dtype=torch.float64, device=x.device)
        y, mean, rstd = ops.norm_act_dropout(
            x[None], weight, bias, mean, rstd, key, step, p, stabilizer, on, self.kind, _NAMES[type(self.activation)]
        )
        if isinstance(norm, BatchNorm) and mode == "measure":
            norm.running_mean.copy_(mean.squeeze(0))
            norm.running_var.copy_((rstd.squeeze(0).double().pow(-2) - eps).clamp_min(0))
        return y.squeeze(0)

    def _settings(self, device: torch.device, mode: str) -> tuple[Tensor, ...]:
        if self.supply is not None and mode == "train":
            return next(self.supply)
        return tuple(torch.zeros((), dtype=dtype, device=device) for dtype in _SETTINGS)
