"""Normalization of a matrix on one core: each row of `x` is a row of the batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from poise.kernels.cpu._jit import inner


@inner
def add_rows(x: Any, first: int, last: int, total: Any) -> None:
    """total ← total + Σ_r x[r] over the rows first … last - 1. Four rows a turn: short loops cost more to enter."""
    columns, r = x.shape[1], first
    while r + 4 <= last:
        for j in range(columns):
            total[j] += (x[r, j] + x[r + 1, j]) + (x[r + 2, j] + x[r + 3, j])
        r += 4
    while r < last:
        for j in range(columns):
            total[j] += x[r, j]
        r += 1


@inner
def rsqrt(var: Any, eps: float) -> None:
    """var ← 1 / sqrt(var + eps)."""
    number = var.dtype.type
    for j in range(var.size):
        var[j] = number(1) / np.sqrt(var[j] + number(eps))


@inner
def slope_and_shift(mean: Any, rstd: Any, weight: Any, bias: Any, slope: Any, shift: Any) -> None:
    """(x - mean) · rstd · weight + bias = x · slope + shift."""
    for j in range(mean.size):
        slope[j] = rstd[j] * weight[j]
        shift[j] = bias[j] - mean[j] * slope[j]


@inner
def scale_columns_backward(
    x: Any, g: Any, mean: Any, rstd: Any, weight: Any, weight_grad: Any, bias_grad: Any
) -> None:  # fmt: skip
    """The same for statistics that do not depend on x."""
    for r in range(x.shape[0]):
        for j in range(x.shape[1]):
            bias_grad[j] += g[r, j]
            weight_grad[j] += g[r, j] * (x[r, j] - mean[j]) * rstd[j]
            g[r, j] *= rstd[j] * weight[j]


@inner
def layer_norm(x: Any, rows: int, mean: Any, rstd: Any, weight: Any, bias: Any, eps: float, out: Any) -> None:
    """out = (x - mean) · rstd · weight + bias, mean and biased variance over each row."""
    number = x.dtype.type
    columns, share = x.shape[1], number(1.0 / x.shape[1])
    for r in range(rows):
        total = number(0)
        for j in range(columns):
            total += x[r, j]
        center, total = total * share, number(0)
        for j in range(columns):
            total += (x[r, j] - center) * (x[r, j] - center)
        scale = number(1) / np.sqrt(total * share + number(eps))
        mean[r], rstd[r] = center, scale
        for j in range(columns):
            out[r, j] = (x[r, j] - center) * scale * weight[j] + bias[j]


@inner
def layer_norm_backward(
    x: Any, g: Any, rows: int, mean: Any, rstd: Any, weight: Any, weight_grad: Any, bias_grad: Any
) -> None:
    """g ← gradient of x; adds to those of weight and bias."""
    number = x.dtype.type
    columns, share = x.shape[1], number(1.0 / x.shape[1])
    for r in range(rows):
        center, scale = mean[r], rstd[r]
        total, moment = number(0), number(0)
        for j in range(columns):
            normal = (x[r, j] - center) * scale
            bias_grad[j] += g[r, j]
            weight_grad[j] += g[r, j] * normal
            total += g[r, j] * weight[j]
            moment += g[r, j] * weight[j] * normal
        total, moment = total * share, moment * share
        for j in range(columns):
            g[r, j] = scale * (g[r, j] * weight[j] - total - (x[r, j] - center) * scale * moment)
