"""Adam's step on the rows of matrices, in one pass: twin of `kernels.adam.reference`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from poise.kernels.cpu._bound import Later, Run
from poise.kernels.cpu._dropout import LIKE, optional
from poise.kernels.cpu._jit import entry, inner
from poise.kernels.cpu._pool import array_at, parallel, take, team

_PIECE = 1 << 12  # elements of a piece of work

DTYPES = frozenset({torch.float32, torch.float64})


def bound_adam(
    weights: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, rate: Tensor, root: Tensor,
    factor: Tensor | None, beta1: float, beta2: float, eps: float,
) -> list[Run]:  # fmt: skip
    """What makes a step; arguments of `adam.reference`, of which the first four are contiguous."""
    later = Later()
    small = (None if one is None else later.fixed(one, weights.dtype) for one in (rate, root, factor))
    tensors = weights, grad, exp_avg, exp_avg_sq, *small
    later.kernel(_adam, (*team(), LIKE[weights.dtype][0]), tensors, (*weights.shape, beta1, beta2, eps))
    return later.runs


@inner
def _rows(
    counter: Any, weights: Any, grad: Any, exp_avg: Any, exp_avg_sq: Any, rate: Any, root: Any, factor: Any,
    columns: int, beta1: float, beta2: float, eps: float,
) -> None:  # fmt: skip
    number = weights.dtype.type
    lean, old, new, eps_ = number(1 - beta1), number(beta2), number(1 - beta2), number(eps)
    pieces = (columns + _PIECE - 1) // _PIECE
    while True:
        piece = take(counter)
        if piece >= pieces * rate.size:
            break
        v, first = piece // pieces, piece % pieces * _PIECE
        last = min(first + _PIECE, columns)
        w, g = weights[v * columns + first : v * columns + last], grad[v * columns + first : v * columns + last]
        m, s = exp_avg[v * columns + first : v * columns + last], exp_avg_sq[v * columns + first : v * columns + last]
        step, correction = rate[v], root[v]
        for i in range(w.size):
            m[i] += lean * (g[i] - m[i])
            s[i] = old * s[i] + new * (g[i] * g[i])
        if factor.size > 0:
            f = factor[first:last]
            for i in range(w.size):
                w[i] -= step * f[i] * m[i] / (np.sqrt(s[i]) / correction + eps_)
        else:
            for i in range(w.size):
                w[i] -= step * m[i] / (np.sqrt(s[i]) / correction + eps_)


@entry
def _adam(
    gomp: int, threads: int, like: Any, weights: int, grad: int, exp_avg: int, exp_avg_sq: int, rate: int, root: int,
    factor: int, variants: int, columns: int, beta1: float, beta2: float, eps: float,
) -> None:  # fmt: skip
    counter, num = np.zeros(1, np.int64), variants * columns
    parallel(gomp, threads, _rows, (
        counter, array_at(weights, num, like), array_at(grad, num, like), array_at(exp_avg, num, like),
        array_at(exp_avg_sq, num, like), array_at(rate, variants, like), array_at(root, variants, like),
        optional(factor, columns, like), columns, beta1, beta2, eps,
    ))  # fmt: skip
