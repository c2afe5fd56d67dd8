"""Kernels that take a scale and a shift of their channels into their weights, in float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from poise.nn import BatchNorm, Linear, NormActDropout

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_KERNELS = (nn.Linear, Linear, *_CONVOLUTIONS, *_TRANSPOSED)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, BatchNorm, NormActDropout)


def takes_affine(module: nn.Module | None) -> bool:
    """Whether it is one of the kernels that can take an affine map in, and computes what that computes."""
    return _own_type(module) in _KERNELS


def is_affine_norm(module: nn.Module | None) -> bool:
    """Whether it is a batch normalization of torch or Poise, alone or with what follows it, and computes no other."""
    if isinstance(module, NormActDropout):
        return module.norm != "layer"
    return _own_type(module) in _NORMS


def channel_axis(kernel: nn.Module) -> int:
    """Axis of the channels of inputs and outputs, from the end, so that it holds without a batch axis, too."""
    return -1 if _own_type(kernel) in (nn.Linear, Linear) else 1 - _of(kernel, "weight").ndim


def num_channels(kernel: nn.Module, *, outputs: bool) -> int:
    """How many there are, of outputs or of inputs."""
    ends = ("in_features", "out_features") if channel_axis(kernel) == -1 else ("in_channels", "out_channels")
    return int(getattr(kernel, ends[outputs]))


def affine_of(norm: nn.Module) -> tuple[Tensor, Tensor] | str:
    """s and t of y = s · x + t, what a batch norm computes in eval mode, in float64; or why it does not.

    s = weight / sqrt(running_var + eps), t = bias - running_mean · s.
    """
    weight, bias = _optional(norm, "weight"), _optional(norm, "bias")
    mean, var = _optional(norm, "running_mean"), _optional(norm, "running_var")
    if isinstance(norm, NormActDropout) and norm.norm == "none":
        scale = torch.ones(norm.num_features, dtype=torch.float64)
        mean = torch.zeros_like(scale)
    elif mean is None or var is None:
        return "it has no running statistics and normalizes by each batch"
    elif isinstance(norm, BatchNorm) and norm.num_domains:
        return "it has running statistics for each domain"
    else:
        scale = (var + float(_of(norm, "eps"))).rsqrt()
    scale = scale if weight is None else weight * scale
    shift = -mean * scale if bias is None else bias - mean * scale
    if not bool(scale.isfinite().all() and shift.isfinite().all()):
        return "its statistics or parameters are not finite"
    return scale, shift


def scale_outputs(kernel: nn.Module, scale: Tensor, shift: Tensor) -> None:
    """Let `kernel` return scale · y + shift, one of each for every channel of its outputs."""
    weight, bias = _wide(_of(kernel, "weight")), _optional(kernel, "bias")
    if _own_type(kernel) in _TRANSPOSED:
        # (in, out / groups, ...): what a row of the weight makes belongs to the group of its input.
        rows = scale.view(int(_of(kernel, "groups")), -1).repeat_interleave(
            weight.shape[0] // int(_of(kernel, "groups")), 0
        )
        weight = weight * _spread(rows, weight)
    else:
        weight = weight * _spread(scale, weight)
    _store(kernel, weight, shift if bias is None else bias * scale + shift)


def scale_inputs(kernel: nn.Module, scale: Tensor, shift: Tensor) -> None:
    """Let `kernel` return what it made of scale · x + shift, one of each for every channel of its inputs."""
    weight, bias = _wide(_of(kernel, "weight")), _optional(kernel, "bias")
    if _own_type(kernel) in _TRANSPOSED:
        _store(kernel, weight * _spread(scale, weight), bias)
        return
    groups = int(_of(kernel, "groups")) if channel_axis(kernel) != -1 else 1
    # (out, in / groups, ...): an output sees the inputs of its group.
    scales, shifts = (one.view(groups, -1).repeat_interleave(weight.shape[0] // groups, 0) for one in (scale, shift))
    made = (weight * _spread(shifts, weight)).flatten(1).sum(1)
    _store(kernel, weight * _spread(scales, weight), made if bias is None else bias + made)


def shift_fails(kernel: nn.Module) -> str:
    """Why a shift of the inputs is no shift of the outputs, as at the edges of padded images; "" where it is one."""
    if _own_type(kernel) in _TRANSPOSED:
        return "is transposed and sums fewer terms at its edges"
    if channel_axis(kernel) == -1 or _of(kernel, "padding_mode") != "zeros":
        return ""  # other paddings repeat what is there
    padding = _of(kernel, "padding")
    if padding == "same":
        pads = any(size > 1 for size in _of(kernel, "kernel_size"))
    else:
        pads = padding != "valid" and any(padding)
    return "pads with zeros, which come after the normalization" if pads else ""


def _own_type(module: nn.Module | None) -> type | None:
    """Which of the known layers it computes: a subclass, such as parametrization makes, must not override that."""
    for kind in (*_KERNELS, *_NORMS):
        if isinstance(module, kind) and all(getattr(type(module), name, None) is way for name, way in _ways(kind)):
            return kind
    return None


def _ways(kind: type) -> list[tuple[str, Any]]:
    return [(name, getattr(kind, name, None)) for name in ("forward", "_conv_forward")]


def _of(module: nn.Module, name: str) -> Any:
    return getattr(module, name)


def _optional(module: nn.Module, name: str) -> Tensor | None:
    value = getattr(module, name, None)
    return None if value is None else _wide(value)


def _wide(value: Tensor) -> Tensor:
    # On the CPU, as some devices have no float64.
    return value.detach().to("cpu", torch.float64)


def _spread(small: Tensor, weight: Tensor) -> Tensor:
    return small.view(*small.shape, *([1] * (weight.ndim - small.ndim)))


def _store(kernel: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    """Parameters of its own, so that others that shared the old ones keep them."""
    like: Tensor = _of(kernel, "weight")
    learns = like.requires_grad
    if parametrize.is_parametrized(kernel):
        # Not `remove_parametrizations`, which changes the class, and that is the original's, too.
        kernel.__class__ = type(kernel).__bases__[0]
        del kernel._modules["parametrizations"]
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            setattr(kernel, name, nn.Parameter(value.to(like.device, like.dtype), requires_grad=learns))
