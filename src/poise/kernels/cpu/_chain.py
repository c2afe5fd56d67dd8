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

For tensors that stay where they are, `bound_forward`, `bound_backward` and `bound_dropout` take the same and where the
results go, and return what has to be called each time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from poise.kernels.cpu import _chain_batch, _chain_batch_backward, _chain_layer
from poise.kernels.cpu._activation import CODES
from poise.kernels.cpu._bound import Run, at, bound, fixed
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
    variants, rows, columns = x.shape
    size = {"batch": columns, "layer": rows, "none": 0}[norm]
    used, scale = (torch.empty(variants, size, dtype=computed, device=x.device) for _ in range(2))
    made = empty_like(x), used, scale
    for run in bound_forward(x, weight, bias, mean, rstd, key, step, p, eps, on, norm, activation, out=made):
        run()
    return made


def bound_forward(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, rstd: Tensor | None, key: Tensor,
    step: Tensor, p: Tensor, eps: Tensor, on: Tensor, norm: str, activation: str, *,
    out: tuple[Tensor, Tensor, Tensor],
) -> list[Run]:  # fmt: skip
    """What makes y, mean and rstd in `out`."""
    y, used, scale = out
    runs: list[Run] = []
    x = fixed(x, x.dtype, runs)
    variants, rows, columns = x.shape
    given = mean is not None and rstd is not None
    if mean is not None and rstd is not None:
        runs += [bound(used.copy_, mean), bound(scale.copy_, rstd)]
    if not x.numel():
        # As torch: a mean of nothing.
        return runs if given else [bound(used.fill_, torch.nan), bound(scale.fill_, torch.nan)]
    small = [None if one is None else fixed(one, used.dtype, runs) for one in (weight, bias)]
    settings = (*settings_at(key, step, p, on, runs), fixed(eps, torch.float64, runs))
    runs.append(bound(
        _FORWARD[norm], *threads_for(x.numel()), *LIKE[x.dtype], *map(at, (x, y, used, scale, *small, *settings)),
        variants, rows, columns, given or norm == "none", CODES[activation],
    ))  # fmt: skip
    return runs


def chain_backward(
    g: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, rstd: Tensor, key: Tensor,
    step: Tensor, p: Tensor, on: Tensor, norm: str, activation: str, given: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dx, dweight, dbias."""
    x = x.contiguous()
    weight_grad, bias_grad = (torch.empty(x.shape[0], x.shape[2], dtype=_COMPUTED[x.dtype]) for _ in range(2))
    made = empty_like(x), weight_grad, bias_grad
    for run in bound_backward(g, x, weight, bias, mean, rstd, key, step, p, on, norm, activation, given, out=made):
        run()
    return made


def bound_backward(
    g: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, rstd: Tensor, key: Tensor,
    step: Tensor, p: Tensor, on: Tensor, norm: str, activation: str, given: bool, *,
    out: tuple[Tensor, Tensor, Tensor],
) -> list[Run]:  # fmt: skip
    """What makes dx, dweight and dbias in `out`."""
    dx, weight_grad, bias_grad = out
    if not x.numel():
        return [bound(weight_grad.zero_), bound(bias_grad.zero_)]
    runs: list[Run] = []
    g, x, computed = fixed(g, g.dtype, runs), fixed(x, x.dtype, runs), _COMPUTED[x.dtype]
    # The gradient between the two passes through a batch norm keeps its digits.
    stash = dx if x.dtype == computed or norm != "batch" or given else torch.empty(x.shape, dtype=computed)
    small = [None if one is None else fixed(one, computed, runs) for one in (mean, rstd, weight, bias)]
    runs.append(bound(
        _BACKWARD[norm], *threads_for(x.numel()), *LIKE[x.dtype],
        *map(at, (g, x, dx, stash, *small, weight_grad, bias_grad, *settings_at(key, step, p, on, runs))),
        *x.shape, given or norm == "none", CODES[activation],
    ))  # fmt: skip
    return runs
