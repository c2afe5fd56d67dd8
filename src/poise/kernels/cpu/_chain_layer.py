"""Chains with layer norm: whole rows at a time, as many as fit into a tile."""

from __future__ import annotations

from typing import Any

import numpy as np

from poise.kernels.cpu._activation import activate, activate_backward
from poise.kernels.cpu._bfloat import widen
from poise.kernels.cpu._chain_batch_backward import combine_sums
from poise.kernels.cpu._dropout import TILE, depth_of, load, multiply_mask, optional, scratch, store
from poise.kernels.cpu._jit import entry, inner
from poise.kernels.cpu._memory import fence
from poise.kernels.cpu._philox import threshold_of
from poise.kernels.cpu._pool import array_at, parallel, take


@inner
def rows_at_once(columns: int) -> int:
    """As many rows as a tile holds, at least one."""
    return max(1, TILE // columns)


@inner
def _moments(values: Any, eps: float) -> Any:
    """Mean and 1 / sqrt(biased variance + eps), in two passes; the second one also mends the mean of the first."""
    number = values.dtype.type
    share = number(1) / number(values.size)
    total, rest, spread = number(0), number(0), number(0)
    for j in range(values.size):
        total += values[j]
    center = total * share
    for j in range(values.size):
        away = values[j] - center
        rest += away
        spread += away * away
    rest *= share
    return center + rest, number(1) / np.sqrt(max(spread * share - rest * rest, number(0)) + number(eps))


@inner
def _parameter(v: int, columns: int, values: Any, otherwise: float, out: Any) -> None:
    for j in range(columns):
        out[j] = values[v * columns + j] if values.size > 0 else otherwise


@inner
def _forward(
    counter: Any, x: Any, y: Any, weight: Any, bias: Any, mean: Any, rstd: Any, key: Any, step: Any, p: Any, eps: Any,
    on: Any, number: Any, rows: int, columns: int, depth: int, code: int,
) -> None:  # fmt: skip
    """y = dropout(act((x - mean) · rstd · weight + bias)) by blocks of `depth` rows; also writes mean and rstd."""
    few, num = rows_at_once(columns), rows * columns
    values, mask = scratch(few * columns, number), scratch(TILE, number)
    slope, shift, drawn = scratch(columns, number), scratch(columns, number), np.empty(1, np.int64)
    blocks, current = (rows + depth - 1) // depth, -1
    while True:
        piece = take(counter)
        if piece >= blocks * key.size:
            break
        v, begin = piece // blocks, piece % blocks * depth
        if v != current:
            current = v
            _parameter(v, columns, weight, 1.0, slope)
            _parameter(v, columns, bias, 0.0, shift)
        threshold = threshold_of(p[v]) if on[v] else 0
        drawn[0] = -1
        end = min(begin + depth, rows)
        for first in range(begin, end, few):
            count = min(few, end - first)
            load(x, v * num + first * columns, count * columns, values)
            for r in range(count):
                row = values[r * columns : (r + 1) * columns]
                center, scale = _moments(row, eps[v])
                mean[v * rows + first + r], rstd[v * rows + first + r] = center, scale
                for j in range(columns):
                    row[j] = (row[j] - center) * scale * slope[j] + shift[j]
            size = count * columns
            activate(code, values[:size])
            if threshold > 0:
                multiply_mask(values, first * columns, size, num, key[v], step[v], threshold, mask, drawn)
            store(values, size, y, v * num + first * columns)
    fence()


@inner
def _backward(
    counter: Any, g: Any, x: Any, dx: Any, weight: Any, bias: Any, mean: Any, rstd: Any, key: Any, step: Any, p: Any,
    on: Any, rows: int, columns: int, depth: int, code: int, partial: Any,
) -> None:  # fmt: skip
    """dx, and partial[v, b] = what block b adds to the gradients of bias and weight."""
    few, num = rows_at_once(columns), rows * columns
    inside, grads, mask = scratch(few * columns, mean), scratch(few * columns, mean), scratch(TILE, mean)
    normal, slope, shift = scratch(few * columns, mean), scratch(columns, mean), scratch(columns, mean)
    bias_grad, weight_grad, drawn = scratch(columns, mean), scratch(columns, mean), np.empty(1, np.int64)
    blocks, current = partial.shape[1], -1
    while True:
        piece = take(counter)
        if piece >= blocks * key.size:
            break
        v, b = piece // blocks, piece % blocks
        if v != current:
            current = v
            _parameter(v, columns, weight, 1.0, slope)
            _parameter(v, columns, bias, 0.0, shift)
        threshold = threshold_of(p[v]) if on[v] else 0
        drawn[0] = -1
        bias_grad[:] = 0
        weight_grad[:] = 0
        end = min((b + 1) * depth, rows)
        for first in range(b * depth, end, few):
            count, at = min(few, end - first), v * num + first * columns
            size, row = count * columns, v * rows + first
            load(g, at, size, grads)
            if threshold > 0:
                multiply_mask(grads, first * columns, size, num, key[v], step[v], threshold, mask, drawn)
            _normalize(x, at, count, mean[row : row + count], rstd[row : row + count], slope, shift, normal, inside)
            activate_backward(code, inside[:size], grads[:size])
            _rows_backward(normal, grads, count, rstd[row : row + count], slope, bias_grad, weight_grad)
            store(grads, size, dx, at)
        for j in range(columns):
            partial[v, b, 0, j] = bias_grad[j]
            partial[v, b, 1, j] = weight_grad[j]
    fence()


@inner
def _normalize(
    x: Any, at: int, count: int, mean: Any, rstd: Any, slope: Any, shift: Any, normal: Any, inside: Any
) -> None:  # fmt: skip
    """normal = (x - mean) · rstd and inside = normal · slope + shift, `count` rows."""
    columns = slope.size
    for r in range(count):
        source, center, scale = x[at + r * columns :][:columns], mean[r], rstd[r]
        unit, target = normal[r * columns : (r + 1) * columns], inside[r * columns : (r + 1) * columns]
        for j in range(columns):
            centered = (widen(source[j]) - center) * scale
            unit[j] = centered
            target[j] = centered * slope[j] + shift[j]


@inner
def _rows_backward(
    normal: Any, grads: Any, count: int, rstd: Any, slope: Any, bias_grad: Any, weight_grad: Any
) -> None:  # fmt: skip
    """grads ← gradient of x, from that of the norm's output; adds to the gradients of bias and weight."""
    columns, number = slope.size, grads.dtype.type
    share = number(1) / number(columns)
    for r in range(count):
        g, unit = grads[r * columns : (r + 1) * columns], normal[r * columns : (r + 1) * columns]
        total, moment = number(0), number(0)
        for j in range(columns):
            bias_grad[j] += g[j]
            weight_grad[j] += g[j] * unit[j]
            total += g[j] * slope[j]
            moment += g[j] * slope[j] * unit[j]
        total, moment = total * share, moment * share
        for j in range(columns):
            g[j] = rstd[r] * (g[j] * slope[j] - total - unit[j] * moment)


@entry
def forward(
    gomp: int, threads: int, like: Any, number: Any, x: int, y: int, mean: int, rstd: int, weight: int, bias: int,
    key: int, step: int, p: int, on: int, eps: int, variants: int, rows: int, columns: int, _given: bool, code: int,
) -> None:  # fmt: skip
    """All of it, at addresses."""
    counter, real, num, size = np.zeros(1, np.int64), np.empty(0, np.float64), rows * columns, variants * columns
    parallel(gomp, threads, _forward, (
        counter, array_at(x, variants * num, like), array_at(y, variants * num, like), optional(weight, size, number),
        optional(bias, size, number), array_at(mean, variants * rows, number), array_at(rstd, variants * rows, number),
        array_at(key, variants, counter), array_at(step, variants, counter), array_at(p, variants, real),
        array_at(eps, variants, real), array_at(on, variants, np.empty(0, np.uint8)), number, rows, columns,
        depth_of(num, columns), code,
    ))  # fmt: skip


@entry
def backward(
    gomp: int, threads: int, like: Any, number: Any, g: int, x: int, dx: int, _stash: int, mean: int, rstd: int,
    weight: int, bias: int, weight_grad: int, bias_grad: int, key: int, step: int, p: int, on: int, variants: int,
    rows: int, columns: int, _given: bool, code: int,
) -> None:  # fmt: skip
    """All of it, at addresses."""
    counter, num, size = np.zeros(1, np.int64), rows * columns, variants * columns
    depth = depth_of(num, columns)
    partial = np.empty((variants, (rows + depth - 1) // depth, 2, columns), np.float64)
    parallel(gomp, threads, _backward, (
        counter, array_at(g, variants * num, like), array_at(x, variants * num, like),
        array_at(dx, variants * num, like), optional(weight, size, number), optional(bias, size, number),
        array_at(mean, variants * rows, number), array_at(rstd, variants * rows, number),
        array_at(key, variants, counter), array_at(step, variants, counter),
        array_at(p, variants, np.empty(0, np.float64)), array_at(on, variants, np.empty(0, np.uint8)), rows, columns,
        depth, code, partial,
    ))  # fmt: skip
    combine_sums(partial, array_at(bias_grad, size, number), array_at(weight_grad, size, number))
