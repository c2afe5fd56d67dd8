"""Normalization + nonlinearity + dropout on all threads of torch's own pool: twin of `kernels._chain_reference`.

Signatures, shared with `kernels.cuda`; all tensors have a leading axis of V variants, may have any strides and live on
one device; `DTYPES` are those that x may have; masks are those of `reference.keep_mask`, element e of a variant =
row · C + column:

    dropout_forward(x, key, step, p, on) -> y
        x (V, ...); key, step int64 (V,); p float (V,); on bool (V,)
    dropout_backward(g, key, step, p, on) -> dx
        the same map, applied to g
    chain_forward(x, weight, bias, mean, rstd, key, step, p, eps, on, norm, activation) -> (y, mean, rstd)
        x (V, N, C); weight, bias (V, C) or None; mean, rstd (V, C) for a batch norm with given statistics, else None;
        eps float (V,); norm "batch" | "layer" | "none"; activation a name.
        y has x's dtype; mean, rstd (V, C) | (V, N) | (V, 0) in the dtype of computing (float32 for half precision)
    chain_backward(g, x, weight, bias, mean, rstd, key, step, p, on, norm, activation, given) -> (dx, dweight, dbias)
        g (V, N, C); mean and rstd as chain_forward returned them; given: whether they were given to it, and so are
        constants; dweight, dbias (V, C) in the dtype of computing, also where weight or bias is None

Here a single variant may lack its axis in all of them but the settings. For tensors that stay where they are,
`bound_forward`, `bound_backward` and `bound_dropout` take the same and where the results go, and return what has to be
called each time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from poise.kernels.cpu import _chain_batch, _chain_batch_backward, _chain_layer
from poise.kernels.cpu._activation import CODES
from poise.kernels.cpu._bound import NOW, Calls, Later, Run
from poise.kernels.cpu._dropout import LIKE, bound_dropout, dropout_backward, dropout_forward, settings_at, threads_for
from poise.kernels.cpu._memory import empty_like

DTYPES = frozenset(LIKE)
__all__ = [
    "DTYPES", "bound_backward", "bound_dropout", "bound_forward", "chain_backward", "chain_forward",
    "dropout_backward", "dropout_forward",
]  # fmt: skip

_COMPUTED = {torch.float32: torch.float32, torch.float64: torch.float64, torch.bfloat16: torch.float32}
_FORWARD = {"batch": _chain_batch.forward, "none": _chain_batch.forward, "layer": _chain_layer.forward}
_BACKWARD = {
    "batch": _chain_batch_backward.backward,
    "none": _chain_batch_backward.backward,
    "layer": _chain_layer.backward,
}


def chain_forward(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, rstd: Tensor | None, key: Tensor,
    step: Tensor, p: Tensor, eps: Tensor, on: Tensor, norm: str, activation: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """y, mean, rstd."""
    x, computed = x.contiguous(), _COMPUTED[x.dtype]
    variants, rows, columns = _sizes(x, key)
    size = {"batch": columns, "layer": rows, "none": 0}[norm]
    made = empty_like(x), torch.empty(variants, size, dtype=computed), torch.empty(variants, size, dtype=computed)
    _forward(NOW, x, weight, bias, mean, rstd, key, step, p, eps, on, norm, activation, out=made)
    return made


def bound_forward(*inputs: Any, out: tuple[Tensor, Tensor, Tensor]) -> list[Run]:
    """What makes y, mean and rstd in `out`."""
    later = Later()
    _forward(later, *inputs, out=out)
    return later.runs


def chain_backward(
    g: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, rstd: Tensor, key: Tensor,
    step: Tensor, p: Tensor, on: Tensor, norm: str, activation: str, given: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dx, dweight, dbias."""
    x, computed = x.contiguous(), _COMPUTED[x.dtype]
    size = key.shape[0], x.shape[-1]
    made = empty_like(x), torch.empty(size, dtype=computed), torch.empty(size, dtype=computed)
    _backward(NOW, g, x, weight, bias, mean, rstd, key, step, p, on, norm, activation, given, out=made)
    return made


def bound_backward(*inputs: Any, out: tuple[Tensor, Tensor, Tensor]) -> list[Run]:
    """What makes dx, dweight and dbias in `out`."""
    later = Later()
    _backward(later, *inputs, out=out)
    return later.runs


def _sizes(x: Tensor, key: Tensor) -> tuple[int, int, int]:
    """V, N and C; a single variant may lack its axis."""
    variants, columns = key.shape[0], x.shape[-1]
    return variants, x.numel() // max(1, variants * columns), columns


def _forward(
    calls: Calls, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, rstd: Tensor | None,
    key: Tensor, step: Tensor, p: Tensor, eps: Tensor, on: Tensor, norm: str, activation: str,
    *, out: tuple[Tensor, Tensor, Tensor],
) -> None:  # fmt: skip
    y, used, scale = out
    x = calls.fixed(x, x.dtype)
    given = mean is not None and rstd is not None
    if mean is not None and rstd is not None:
        calls.plain(used.copy_, mean)
        calls.plain(scale.copy_, rstd)
    if not x.numel():
        if not given:  # as torch: a mean of nothing
            calls.plain(used.fill_, torch.nan)
            calls.plain(scale.fill_, torch.nan)
        return
    small = (None if one is None else calls.fixed(one, used.dtype) for one in (weight, bias))
    tensors = x, y, used, scale, *small, *settings_at(key, step, p, on, calls), calls.fixed(eps, torch.float64)
    names = given or norm == "none", CODES[activation]
    calls.kernel(_FORWARD[norm], (*threads_for(x.numel()), *LIKE[x.dtype]), tensors, (*_sizes(x, key), *names))


def _backward(
    calls: Calls, g: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, rstd: Tensor,
    key: Tensor, step: Tensor, p: Tensor, on: Tensor, norm: str, activation: str, given: bool,
    *, out: tuple[Tensor, Tensor, Tensor],
) -> None:  # fmt: skip
    dx, weight_grad, bias_grad = out
    if not x.numel():
        calls.plain(weight_grad.zero_)
        calls.plain(bias_grad.zero_)
        return
    g, x, computed = calls.fixed(g, g.dtype), calls.fixed(x, x.dtype), _COMPUTED[x.dtype]
    # The gradient between the two passes through a batch norm keeps its digits.
    stash = dx if x.dtype == computed or norm != "batch" or given else torch.empty(x.shape, dtype=computed)
    small = (None if one is None else calls.fixed(one, computed) for one in (mean, rstd, weight, bias))
    tensors = g, x, dx, stash, *small, weight_grad, bias_grad, *settings_at(key, step, p, on, calls)
    names = given or norm == "none", CODES[activation]
    calls.kernel(_BACKWARD[norm], (*threads_for(x.numel()), *LIKE[x.dtype]), tensors, (*_sizes(x, key), *names))
