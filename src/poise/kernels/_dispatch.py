"""Which kernel runs a chain on which device, and what it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from poise._checks import check_choice
from poise._errors import ConfigError
from poise.kernels import _chain_reference as reference
from poise.kernels.cpu import _chain as cpu
from poise.kernels.cpu._bound import Run

NORMS = ("batch", "layer", "none")
_ACTIVATIONS = tuple(reference.ACTIVATIONS)


def _modules() -> dict[str, Any]:
    found: dict[str, Any] = {"cpu": cpu}
    if torch.version.cuda is not None:
        with suppress(ImportError):  # where there is no Triton
            found["cuda"] = import_module("poise.kernels.cuda")
    return found


_MODULES = _modules()


def kernels(x: Tensor) -> Any:
    """The module of machine code for x's device and dtype, with the functions that `cpu._chain` lists, or None."""
    module = _MODULES.get(x.device.type)
    return module if module is not None and x.dtype in module.DTYPES else None


def run_dropout(x: Tensor, key: Tensor, step: Tensor, p: Tensor, on: Tensor) -> Tensor:
    """x times its masks, without autograd."""
    _check_settings(x, (key, step, p, on))
    module = kernels(x)
    made: Tensor = (reference.dropout if module is None else module.dropout_forward)(x, key, step, p, on)
    return made


def run_chain(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, rstd: Tensor | None, key: Tensor,
    step: Tensor, p: Tensor, eps: Tensor, on: Tensor, norm: str, activation: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """y, mean and rstd by machine code, without autograd."""
    check_chain(x, (weight, bias, mean, rstd), (key, step, p, eps, on), norm, activation)
    made: tuple[Tensor, Tensor, Tensor] = kernels(x).chain_forward(
        x, weight, bias, mean, rstd, key, step, p, eps, on, norm, activation
    )
    return made


def run_chain_backward(
    g: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, rstd: Tensor, key: Tensor,
    step: Tensor, p: Tensor, _eps: Tensor, on: Tensor, norm: str, activation: str, given: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of x, weight and bias by machine code; those of None are there too."""
    made: tuple[Tensor, Tensor, Tensor] = kernels(x).chain_backward(
        g, x, weight, bias, mean, rstd, key, step, p, on, norm, activation, given
    )
    return made


def run_layer(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, rstd: Tensor | None, *inputs: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """`run_chain` for one variant whose x (..., C), weight, bias, mean and rstd (C,) lack its axis."""
    columns, rows = x.shape[-1], (weight, bias, mean, rstd)
    for one in rows:
        if one is not None and one.numel() != columns:
            raise ConfigError(f"weight, bias, mean and rstd must have shape ({columns},), but got {tuple(one.shape)}.")
    if x.is_cpu:  # whose machine code looks at addresses and needs no views
        return cpu.chain_forward(x, weight, bias, mean, rstd, *inputs)
    y, used, scale = kernels(x).chain_forward(x.reshape(1, -1, columns), *map(lead, rows), *inputs)
    return y.view(x.shape), used, scale


def run_layer_backward(
    g: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, rstd: Tensor, key: Tensor,
    step: Tensor, p: Tensor, _eps: Tensor, on: Tensor, *names: Any,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """`run_chain_backward` likewise; the gradients of weight and bias have the axis."""
    if x.is_cpu:
        return cpu.chain_backward(g, x, weight, bias, mean, rstd, key, step, p, on, *names)
    shape = 1, -1, x.shape[-1]
    dx, dweight, dbias = kernels(x).chain_backward(
        g.reshape(shape), x.reshape(shape), lead(weight), lead(bias), mean, rstd, key, step, p, on, *names
    )
    return dx.view(x.shape), dweight, dbias


def lead(one: Tensor | None) -> Tensor | None:
    """`one` with the axis of a single variant."""
    return None if one is None else one.unsqueeze(0)


def bound_dropout(*inputs: Tensor, out: Sequence[Tensor]) -> list[Run]:
    """What runs `run_dropout` on a CPU, for tensors that stay where they are."""
    _check_settings(inputs[0], inputs[1:])
    if kernels(inputs[0]) is None:
        return [lambda: out[0].copy_(reference.dropout(*inputs))]
    return cpu.bound_dropout(*inputs, out=(out[0],))


def bound_chain(*inputs: Any, out: Sequence[Tensor]) -> list[Run]:
    """What runs `run_chain` likewise."""
    x, weight, bias, mean, rstd, *settings, norm, activation = inputs
    check_chain(x, (weight, bias, mean, rstd), settings, norm, activation)
    return cpu.bound_forward(*inputs, out=(out[0], out[1], out[2]))


def bound_chain_backward(*inputs: Any, out: Sequence[Tensor]) -> list[Run]:
    """What runs `run_chain_backward` likewise."""
    g, x, weight, bias, mean, rstd, key, step, p, _eps, on, *names = inputs
    return cpu.bound_backward(
        g, x, weight, bias, mean, rstd, key, step, p, on, *names, out=(out[0], out[1], out[2])
    )  # fmt: skip


def check_chain(
    x: Tensor, rows: Sequence[Tensor | None], settings: Sequence[Tensor], norm: str, activation: str
) -> None:  # fmt: skip
    """Machine code reads memory as it is told: a shape that does not fit must not get there."""
    check_choice("norm", norm, NORMS)
    check_choice("activation", activation, _ACTIVATIONS)
    if x.ndim != 3:
        raise ConfigError(f"`x` must have the axes (V, N, C), but got shape {tuple(x.shape)}.")
    shape = (x.shape[0], x.shape[2])
    for one in rows:
        if one is not None and one.shape != shape:
            raise ConfigError(f"weight, bias, mean and rstd must have shape {shape}, but got {tuple(one.shape)}.")
    mean, rstd = rows[2:]
    if (mean is None) != (rstd is None) or (mean is not None and norm != "batch"):
        raise ConfigError("`mean` and `rstd` must be given both or not at all, and only for norm='batch'.")
    _check_settings(x, settings)


def _check_settings(x: Tensor, settings: Sequence[Tensor]) -> None:
    shape, device = x.shape[:1], x.device
    for one in settings:
        if one.shape != shape or one.device != device:
            raise ConfigError(
                f"Every setting must have shape {tuple(shape)}, one entry for each variant, and be on {device}, "
                f"but got shape {tuple(one.shape)} on {one.device}."
            )
