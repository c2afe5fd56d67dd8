"""Normalization of a matrix on one core: each row of `x` is a row of the batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from poise.kernels.cpu._jit import inner


@inner
def column_moments(x: Any, first: int, last: int, mean: Any, var: Any) -> None:
    """Mean and biased variance of each column over the rows first … last - 1, in two passes against cancellation."""
    columns, share = x.shape[1], x.dtype.type(1.0 / (last - first))
    mean[:] = 0
    var[:] = 0
    for r in range(first, last):
        for j in range(columns):
            mean[j] += x[r, j]
    for j in range(columns):
        mean[j] *= share
    for r in range(first, last):
        for j in range(columns):
            centered = x[r, j] - mean[j]
            var[j] += centered * centered
    for j in range(columns):
        var[j] *= share


@inner
def rsqrt(var: Any, eps: float) -> None:
    """var ← 1 / sqrt(var + eps)."""
    number = var.dtype.type
    for j in range(var.size):
        var[j] = number(1) / np.sqrt(var[j] + number(eps))


@inner
def scale_columns(x: Any, first: int, last: int, mean: Any, rstd: Any, weight: Any, bias: Any, out: Any) -> None:
    """out = (x - mean) · rstd · weight + bias, by columns, for the rows first … last - 1."""
    columns = x.shape[1]
    slope, shift = np.empty_like(mean), np.empty_like(mean)
    for j in range(columns):
        slope[j] = rstd[j] * weight[j]
        shift[j] = bias[j] - mean[j] * slope[j]
    for r in range(first, last):
        for j in range(columns):
            out[r, j] = x[r, j] * slope[j] + shift[j]


@inner
def batch_norm_backward(
    x: Any, g: Any, first: int, last: int, mean: Any, rstd: Any, weight: Any, weight_grad: Any, bias_grad: Any
) -> None:
    """g ← gradient of x for the rows first … last - 1, which share moments; adds to those of weight and bias."""
    columns, share = x.shape[1], x.dtype.type(1.0 / (last - first))
    total, moment = np.zeros_like(mean), np.zeros_like(mean)
    for r in range(first, last):
        for j in range(columns):
            total[j] += g[r, j]
            moment[j] += g[r, j] * (x[r, j] - mean[j])
    slope, pull = np.empty_like(mean), np.empty_like(mean)
    for j in range(columns):
        bias_grad[j] += total[j]
        weight_grad[j] += moment[j] * rstd[j]
        slope[j] = rstd[j] * weight[j]
        pull[j] = -slope[j] * rstd[j] * rstd[j] * moment[j] * share
        total[j] *= share
    for r in range(first, last):
        for j in range(columns):
            g[r, j] = (g[r, j] - total[j]) * slope[j] + (x[r, j] - mean[j]) * pull[j]


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
