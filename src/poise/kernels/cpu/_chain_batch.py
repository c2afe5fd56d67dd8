"""Chains whose constants belong to columns: batch norm, given statistics, or no norm.

Rows narrower than `_WIDE` are taken several at a time, as one row whose constants repeat: otherwise vectors would stay
half empty. Sums over rows are made in blocks of rows that depend on the shape alone and are combined in order in
float64, so that they do not depend on threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from poise.kernels.cpu._activation import activate
from poise.kernels.cpu._bfloat import widen
from poise.kernels.cpu._dropout import PART, TILE, depth_of, multiply_mask, optional, scratch, store
from poise.kernels.cpu._jit import entry, inner
from poise.kernels.cpu._memory import fence
from poise.kernels.cpu._philox import threshold_of
from poise.kernels.cpu._pool import array_at, parallel, take

_WIDE = 256
_SAMPLED = 4
GROUP = 4  # tiles of a piece of work


@inner
def period_of(columns: int) -> int:
    """The length of a row of whole rows, at least `_WIDE`."""
    return columns * max(1, (_WIDE + columns - 1) // columns)


@inner
def _moments(counter: Any, x: Any, variants: int, rows: int, columns: int, depth: int, partial: Any) -> None:
    """partial[v, b] = mean and sum of squared distances from it, of each column in rows b · depth … of variant v."""
    blocks, period = partial.shape[1], period_of(columns)
    shift = scratch(period, partial)
    number = shift.dtype.type
    total, squares = scratch(shift.size, shift), scratch(shift.size, shift)
    while True:
        piece = take(counter)
        if piece >= variants * blocks:
            break
        v, b = piece // blocks, piece % blocks
        first, last = b * depth, min((b + 1) * depth, rows)
        _sample(x, (v * rows + first) * columns, last - first, columns, shift)
        total[:] = 0
        squares[:] = 0
        _add_moments(x, (v * rows + first) * columns, (v * rows + last) * columns, shift, total, squares)
        share = number(1) / number(last - first)
        for j in range(columns):
            s, q = number(0), number(0)
            for k in range(j, period, columns):
                s += total[k]
                q += squares[k]
            partial[v, b, 0, j] = shift[j] + s * share
            partial[v, b, 1, j] = q - s * s * share


@inner
def _sample(x: Any, start: int, rows: int, columns: int, shift: Any) -> None:
    """shift = the columns' mean over a few rows, repeated: squares of x - shift do not cancel where |mean| >> sd."""
    taken = min(rows, _SAMPLED)
    number = shift.dtype.type
    shift[:] = 0
    for i in range(taken):
        row = x[start + i * rows // taken * columns :][:columns]
        for j in range(columns):
            shift[j] += number(widen(row[j])) / number(taken)
    for k in range(columns, shift.size):
        shift[k] = shift[k - columns]


@inner
def _add_moments(x: Any, first: int, last: int, shift: Any, total: Any, squares: Any) -> None:
    period, at = shift.size, first
    while at + 4 * period <= last:
        x0, x1 = x[at : at + period], x[at + period : at + 2 * period]
        x2, x3 = x[at + 2 * period : at + 3 * period], x[at + 3 * period : at + 4 * period]
        for j in range(period):
            a, b = widen(x0[j]) - shift[j], widen(x1[j]) - shift[j]
            c, d = widen(x2[j]) - shift[j], widen(x3[j]) - shift[j]
            total[j] += (a + b) + (c + d)
            squares[j] += (a * a + b * b) + (c * c + d * d)
        at += 4 * period
    while at < last:
        row = x[at : min(at + period, last)]
        for j in range(row.size):
            a = widen(row[j]) - shift[j]
            total[j] += a
            squares[j] += a * a
        at += period


@inner
def _combine(counter: Any, partial: Any, rows: int, depth: int, eps: Any, mean: Any, rstd: Any) -> None:
    """Mean and 1 / sqrt(var + eps) of all rows by Chan, Golub and LeVeque's formula (1979), one variant at a time."""
    variants, blocks, _, columns = partial.shape
    total, center, spread = np.empty(columns), np.empty(columns), np.empty(columns)
    while True:
        v = take(counter)
        if v >= variants:
            break
        total[:] = 0
        spread[:] = 0
        for b in range(blocks):
            count = min(depth, rows - b * depth) / rows
            for j in range(columns):
                total[j] += count * partial[v, b, 0, j]
        for j in range(columns):
            center[j] = total[j]
        for b in range(blocks):
            count = float(min(depth, rows - b * depth))
            for j in range(columns):
                away = partial[v, b, 0, j] - center[j]
                spread[j] += partial[v, b, 1, j] + count * away * away
        for j in range(columns):
            mean[v * columns + j] = center[j]
            rstd[v * columns + j] = 1 / np.sqrt(max(spread[j] / rows, 0.0) + eps[v])


@inner
def constants(v: int, columns: int, values: Any, otherwise: float, out: Any) -> None:
    """out = the columns' values of variant v, repeated; `otherwise` where there are none."""
    for j in range(columns):
        out[j] = values[v * columns + j] if values.size > 0 else otherwise
    for k in range(columns, out.size):
        out[k] = out[k - columns]


@inner
def affine(x: Any, start: int, first: int, size: int, center: Any, slope: Any, shift: Any, out: Any) -> None:
    """out[:size] = (x - center) · slope + shift for elements first … of the variant that begins at `start`."""
    period, done = center.size, 0
    column = first % period
    while done < size:
        at = start + first + done
        part = min(period - column, size - done)
        source, target = x[at : at + part], out[done : done + part]
        m, a, b = center[column : column + part], slope[column : column + part], shift[column : column + part]
        for i in range(part):
            target[i] = (widen(source[i]) - m[i]) * a[i] + b[i]
        done += part
        column = 0


@inner
def _apply(
    counter: Any, x: Any, y: Any, weight: Any, bias: Any, mean: Any, rstd: Any, key: Any, step: Any, p: Any, on: Any,
    number: Any, num: int, columns: int, code: int,
) -> None:  # fmt: skip
    """y = dropout(act((x - mean) · rstd · weight + bias)), the last tiles first: their x is still in the cache."""
    values, mask, drawn = scratch(PART, number), scratch(TILE, number), np.empty(1, np.int64)
    center = scratch(period_of(columns), number)
    scale, slope, shift = scratch(center.size, center), scratch(center.size, center), scratch(center.size, center)
    groups, current = (num + GROUP * TILE - 1) // (GROUP * TILE), -1
    while True:
        piece = groups * key.size - 1 - take(counter)
        if piece < 0:
            break
        v, start = piece // groups, piece % groups * GROUP * TILE
        if v != current:
            current = v
            constants(v, columns, mean, 0.0, center)
            constants(v, columns, rstd, 1.0, scale)
            constants(v, columns, weight, 1.0, slope)
            constants(v, columns, bias, 0.0, shift)
            slope *= scale
        threshold = threshold_of(p[v]) if on[v] else 0
        drawn[0] = -1
        for first in range(start, min(start + GROUP * TILE, num), PART):
            size = min(PART, num - first)
            affine(x, v * num, first, size, center, slope, shift, values)
            activate(code, values[:size])
            if threshold > 0:
                multiply_mask(values, first, size, num, key[v], step[v], threshold, mask, drawn)
            store(values, size, y, v * num + first)
    fence()


@entry
def forward(
    gomp: int, threads: int, like: Any, number: Any, x: int, y: int, mean: int, rstd: int, weight: int, bias: int,
    key: int, step: int, p: int, on: int, eps: int, variants: int, rows: int, columns: int, given: bool, code: int,
) -> None:  # fmt: skip
    """All of it, at addresses; the statistics are computed unless they are given, or there are none."""
    counter, real, num, size = np.zeros(1, np.int64), np.empty(0, np.float64), rows * columns, variants * columns
    x_, mean_, rstd_ = array_at(x, variants * num, like), optional(mean, size, number), optional(rstd, size, number)
    if not given:
        depth = depth_of(num, columns)
        partial = np.empty((variants, (rows + depth - 1) // depth, 2, columns), number.dtype)
        parallel(gomp, threads, _moments, (counter, x_, variants, rows, columns, depth, partial))
        counter[0] = 0
        eps_ = array_at(eps, variants, real)
        parallel(gomp, min(threads, variants), _combine, (counter, partial, rows, depth, eps_, mean_, rstd_))
        counter[0] = 0
    parallel(gomp, threads, _apply, (
        counter, x_, array_at(y, variants * num, like), optional(weight, size, number), optional(bias, size, number),
        mean_, rstd_, array_at(key, variants, counter), array_at(step, variants, counter), array_at(p, variants, real),
        array_at(on, variants, np.empty(0, np.uint8)), number, num, columns, code,
    ))  # fmt: skip
