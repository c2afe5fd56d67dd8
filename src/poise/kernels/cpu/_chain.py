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
"""

from __future__ import annotations

import torch
from torch import Tensor

from poise.kernels.cpu import _chain_batch, _chain_batch_backward, _chain_layer
from poise.kernels.cpu._activation import CODES
from poise.kernels.cpu._dropout import LIKE, dense, dropout_backward, dropout_forward, settings_at, threads_for
from poise.kernels.cpu._memory import empty_like

DTYPES = frozenset(LIKE)
__all__ = ["DTYPES", "chain_backward", "chain_forward", "dropout_backward", "dropout_forward"]

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
    given = mean is not None and rstd is not None
    if mean is None or rstd is None:
        size = {"batch": columns, "layer": rows, "none": 0}[norm]
        mean, rstd = (torch.empty(variants, size, dtype=computed, device=x.device) for _ in range(2))
    else:
        mean, rstd = dense(mean, computed), dense(rstd, computed)
    y, settings = empty_like(x), (*settings_at(key, step, p, on), dense(eps, torch.float64))
    small = (_optional(weight, computed), _optional(bias, computed))
    if x.numel():
        _FORWARD[norm](
            *threads_for(x.numel()), *LIKE[x.dtype], *(one.data_ptr() for one in (x, y, mean, rstd)),
            *(one.data_ptr() if one is not None else 0 for one in small), *(one.data_ptr() for one in settings),
            variants, rows, columns, given or norm == "none", CODES[activation],
        )  # fmt: skip
    elif not given:
        mean.fill_(torch.nan), rstd.fill_(torch.nan)  # as torch: a mean of nothing
    return y, mean, rstd


def chain_backward(
    g: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, rstd: Tensor, key: Tensor,
    step: Tensor, p: Tensor, on: Tensor, norm: str, activation: str, given: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dx, dweight, dbias."""
    g, x, computed = g.contiguous(), x.contiguous(), _COMPUTED[x.dtype]
    variants, rows, columns = x.shape
    mean, rstd, settings = dense(mean, computed), dense(rstd, computed), settings_at(key, step, p, on)
    small = (_optional(weight, computed), _optional(bias, computed))
    dx = empty_like(x)
    # The gradient between the two passes through a batch norm keeps its digits.
    stash = dx if x.dtype == computed or norm != "batch" or given else torch.empty(x.shape, dtype=computed)
    if not x.numel():
        zeros = torch.zeros(2, variants, columns, dtype=computed)
        return dx, zeros[0], zeros[1]
    weight_grad, bias_grad = (torch.empty(variants, columns, dtype=computed) for _ in range(2))
    _BACKWARD[norm](
        *threads_for(x.numel()), *LIKE[x.dtype], *(one.data_ptr() for one in (g, x, dx, stash, mean, rstd)),
        *(one.data_ptr() if one is not None else 0 for one in small), weight_grad.data_ptr(), bias_grad.data_ptr(),
        *(one.data_ptr() for one in settings), variants, rows, columns, given or norm == "none", CODES[activation],
    )  # fmt: skip
    return dx, weight_grad, bias_grad


def _optional(small: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if small is None else dense(small, dtype)
