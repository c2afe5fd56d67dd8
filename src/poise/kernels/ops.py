"""Dropout, and normalization + nonlinearity + dropout in one, as differentiable torch operators.

Each has two doors to the same kernel: a plain `autograd.Function`, which costs a few microseconds, where torch runs
eagerly; and a custom operator, which `torch.func.vmap`, `torch.compile` and `torch.export` can look into. Whoever maps
an operator over variants gets one call of the kernel for all of them. `_chain_reference` says what is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from poise.kernels import _chain_reference as reference
from poise.kernels._autograd import (
    Layer,
    call_chain,
    call_dropout,
    chain_op,
    dropout_op,
    is_transformed,
)
from poise.kernels._dispatch import (
    NORMS,
    bound_chain,
    bound_chain_backward,
    bound_dropout,
    kernels,
    lead,
    run_chain,
    run_chain_backward,
    run_dropout,
)
from poise.kernels.adam import bound_adam

__all__ = ["BOUND", "KERNELS", "NORMS", "dropout", "layer", "norm_act_dropout", "settings"]

KERNELS: dict[Any, Callable[..., Any]] = {
    torch.ops.poise.dropout.default: run_dropout,
    torch.ops.poise.norm_act_dropout.default: run_chain,
    torch.ops.poise.norm_act_dropout_backward.default: run_chain_backward,
}
"""What each custom operator runs, for who has recorded a pass and knows that nobody differentiates or maps it."""
BOUND: dict[Any, Callable[..., list[Callable[[], Any]]]] = {
    torch.ops.poise.dropout.default: bound_dropout,
    torch.ops.poise.norm_act_dropout.default: bound_chain,
    torch.ops.poise.norm_act_dropout_backward.default: bound_chain_backward,
    torch.ops.poise.adam.default: bound_adam,
}
"""The same on a CPU for tensors that stay where they are: function(*args, out=results) returns what runs each time;
without `out` for what works in place.
"""
_SIGN = 1 << 63


def settings(
    seed: int, step: int, p: float, eps: float, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """key, step, p, eps and on of a single variant, as the operators take them; it drops where p > 0."""
    # A tensor that is made while torch traces belongs to the trace.
    make = _constants if _is_eager(()) else _make_constants
    key, strength, stabilizer, on = make(seed, p, eps, device)
    # Filled on the device: a copy from the CPU would wait for all that runs there.
    return key, torch.full((1,), _signed(step), dtype=torch.int64, device=device), strength, stabilizer, on


def _make_constants(seed: int, p: float, eps: float, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    strength, stabilizer = (torch.tensor([real], dtype=torch.float64, device=device) for real in (p, eps))
    return torch.tensor([_signed(seed)], device=device), strength, stabilizer, torch.tensor([p > 0], device=device)


_constants = lru_cache(maxsize=256)(_make_constants)


def _signed(number: int) -> int:
    """The same 64 bits in two's complement."""
    return ((number + _SIGN) & (2 * _SIGN - 1)) - _SIGN


def dropout(x: Tensor, key: Tensor, step: Tensor, p: Tensor, on: Tensor) -> Tensor:
    """x times the masks of `poise.kernels.reference.keep_mask`; see `_chain_reference.dropout`.

    Args:
        x: (V, ...).
        key: int64 of shape (V,).
        step: int64 of shape (V,).
        p: (V,), in [0, 1).
        on: bool of shape (V,).

    Raises:
        ConfigError: If a shape does not fit.

    Example:
        >>> x = torch.ones(2, 1000)
        >>> one, zero = torch.ones(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
        >>> y = dropout(x, one, zero, torch.tensor([0.5, 0.0]), torch.tensor([True, True]))
        >>> y.unique().tolist(), bool((y[1] == x[1]).all())
        ([0.0, 1.0, 2.0], True)

    Reference: Srivastava et al., "Dropout", JMLR 15, 2014. Salmon et al., "Parallel random numbers", SC 2011.
    """
    run = call_dropout if _is_eager((x,)) else dropout_op
    made: Tensor = run(x, key, step, p, on)
    return made


def norm_act_dropout(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, rstd: Tensor | None, key: Tensor,
    step: Tensor, p: Tensor, eps: Tensor, on: Tensor, norm: str, activation: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """y = dropout(act((x - mean) / sqrt(var + eps) · weight + bias)); see `_chain_reference.norm_act_dropout`.

    For the way back it keeps x and the statistics; masks and slopes are computed again.

    Args:
        x: (V, N, C).
        weight: (V, C), or None for ones.
        bias: (V, C), or None for zeros.
        mean: (V, C), where the statistics of a batch norm are given and constant; otherwise None.
        rstd: (V, C) with `mean`, otherwise None.
        key: As for `dropout`.
        step: As for `dropout`.
        p: As for `dropout`.
        eps: (V,), > 0.
        on: As for `dropout`.
        norm: "batch", "layer" or "none".
        activation: relu, leaky_relu, gelu, silu, selu, tanh, mish or identity.

    Returns:
        y; and the mean and 1 / sqrt(biased variance + eps) that were used, without gradients.

    Raises:
        ConfigError: If a shape does not fit, or there is no such norm or activation.

    Example:
        >>> x, zero, p = torch.tensor([[[1.0], [3.0]]]), torch.zeros(1, dtype=torch.int64), torch.zeros(1)
        >>> draws = (zero, zero, p, torch.tensor([1e-12]), torch.tensor([True]))
        >>> y, mean, rstd = norm_act_dropout(x, None, None, None, None, *draws, "batch", "relu")
        >>> y.flatten().tolist(), mean.tolist()
        ([0.0, 1.0], [[2.0]])

    Reference: Ioffe and Szegedy, "Batch normalization", ICML 2015. Ba et al., "Layer normalization", 2016.
    """
    if kernels(x) is None:
        y, mean, rstd = reference.norm_act(x, weight, bias, mean, rstd, eps, norm, activation)
        return dropout(y, key, step, p, on), mean, rstd
    run = call_chain if _is_eager((x, weight, bias)) else chain_op
    made: tuple[Tensor, Tensor, Tensor] = run(
        x.contiguous(), weight, bias, mean, rstd, key, step, p, eps, on, norm, activation
    )
    return made


def layer(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, rstd: Tensor | None,
    settings: tuple[Tensor, Tensor, Tensor, Tensor, Tensor], norm: str, activation: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """`norm_act_dropout` of one variant without its axis, for layers.

    Args:
        x: (..., C).
        weight: (C,), or None for ones.
        bias: (C,), or None for zeros.
        mean: (C,) for given statistics, otherwise None.
        rstd: (C,) with `mean`, otherwise None.
        settings: key, step, p, eps and on, as `settings` makes them.
        norm: As for `norm_act_dropout`.
        activation: As for `norm_act_dropout`.

    Returns:
        y like x; mean and rstd with the axis of one variant.
    """
    if torch.is_grad_enabled() and _is_eager((x, weight, bias)) and not is_transformed() and kernels(x) is not None:
        run: Any = Layer.apply
        made: tuple[Tensor, Tensor, Tensor] = run(x, weight, bias, mean, rstd, *settings, norm, activation)
        return made
    rows = map(lead, (weight, bias, mean, rstd))
    run = norm_act_dropout
    y, used, scale = run(x.reshape(1, -1, x.shape[-1]), *rows, *settings, norm, activation)
    return y.view(x.shape), used, scale


def _is_eager(tensors: Sequence[Tensor | None]) -> bool:
    """Whether torch does at once what it is told, with ordinary tensors, and nobody records it."""
    core: Any = torch._C
    if torch.compiler.is_compiling() or core._len_torch_dispatch_stack():
        return False
    return all(type(one) in (Tensor, nn.Parameter, type(None)) for one in tensors)
