"""The way back through `_chain_batch`: one pass makes the sums over rows, a second one the gradient of x."""

from __future__ import annotations

from typing import Any

import numpy as np

from poise.kernels.cpu._activation import activate_backward
from poise.kernels.cpu._bfloat import widen
from poise.kernels.cpu._chain_batch import GROUP, affine, constants, period_of
from poise.kernels.cpu._dropout import PART, TILE, depth_of, load, multiply_mask, optional, scratch, store
from poise.kernels.cpu._jit import entry, inner
from poise.kernels.cpu._memory import fence
from poise.kernels.cpu._philox import threshold_of
from poise.kernels.cpu._pool import array_at, parallel, take


@inner
def _reduce(
    counter: Any, g: Any, x: Any, dx: Any, stash: Any, weight: Any, bias: Any, mean: Any, rstd: Any, key: Any,
    step: Any, p: Any, on: Any, num: int, columns: int, depth: int, code: int, constant: bool, partial: Any,
) -> None:  # fmt: skip
    """Through dropout and activation; partial[v, b] = sums of the gradient and of it times x - mean, by column.

    Where the statistics are constant, dx is the gradient of x; otherwise `stash` is that of the norm's output, for
    `_spread`, and may share its memory with dx. Block b has the tiles b · depth ….
    """
    inside, grads, mask = scratch(PART, stash), scratch(PART, stash), scratch(TILE, stash)
    center, drawn = scratch(period_of(columns), stash), np.empty(1, np.int64)
    scale, slope, shift = scratch(center.size, center), scratch(center.size, center), scratch(center.size, center)
    total, moment = scratch(center.size, center), scratch(center.size, center)
    blocks, current = partial.shape[1], -1
    while True:
        piece = take(counter)
        if piece >= blocks * key.size:
            break
        v, b = piece // blocks, piece % blocks
        if v != current:
            current = v
            constants(v, columns, mean, 0.0, center)
            constants(v, columns, rstd, 1.0, scale)
            constants(v, columns, weight, 1.0, slope)
            constants(v, columns, bias, 0.0, shift)
            slope *= scale
        threshold = threshold_of(p[v]) if on[v] else 0
        drawn[0] = -1
        total[:] = 0
        moment[:] = 0
        for first in range(b * depth * TILE, min((b + 1) * depth * TILE, num), PART):
            size = min(PART, num - first)
            load(g, v * num + first, size, grads)
            if threshold > 0:
                multiply_mask(grads, first, size, num, key[v], step[v], threshold, mask, drawn)
            affine(x, v * num, first, size, center, slope, shift, inside)
            activate_backward(code, inside[:size], grads[:size])
            _add_sums(x, v * num, first, size, grads, center, total, moment)
            if constant:
                _scale(grads, first, size, slope)
                store(grads, size, dx, v * num + first)
            else:
                store(grads, size, stash, v * num + first)
        for j in range(columns):
            s, q = 0.0, 0.0
            for k in range(j, total.size, columns):
                s += total[k]
                q += moment[k]
            partial[v, b, 0, j] = s
            partial[v, b, 1, j] = q * scale[j]
    fence()


@inner
def _add_sums(x: Any, start: int, first: int, size: int, grads: Any, center: Any, total: Any, moment: Any) -> None:
    """Add up a tile by columns."""
    period, done = center.size, 0
    column = first % period
    while done < size:
        at = start + first + done
        if column == 0 and size - done >= 4 * period:  # four rows at once load and store their sums once
            x0, x1, x2, x3 = x[at:], x[at + period :], x[at + 2 * period :], x[at + 3 * period :]
            g0, g1, g2, g3 = (
                grads[done:],
                grads[done + period :],
                grads[done + 2 * period :],
                grads[done + 3 * period :],
            )
            for j in range(period):
                m = center[j]
                total[j] += (g0[j] + g1[j]) + (g2[j] + g3[j])
                low = g0[j] * (widen(x0[j]) - m) + g1[j] * (widen(x1[j]) - m)
                moment[j] += low + (g2[j] * (widen(x2[j]) - m) + g3[j] * (widen(x3[j]) - m))
            done += 4 * period
            continue
        part = min(period - column, size - done)
        source, g = x[at : at + part], grads[done : done + part]
        m_, s, q = center[column : column + part], total[column : column + part], moment[column : column + part]
        for i in range(part):
            s[i] += g[i]
            q[i] += g[i] * (widen(source[i]) - m_[i])
        done += part
        column = 0


@inner
def _scale(grads: Any, first: int, size: int, slope: Any) -> None:
    """Multiply a tile by its columns' slopes."""
    period, done = slope.size, 0
    column = first % period
    while done < size:
        part = min(period - column, size - done)
        g, a = grads[done : done + part], slope[column : column + part]
        for i in range(part):
            g[i] *= a[i]
        done += part
        column = 0


@inner
def combine_sums(partial: Any, bias_grad: Any, weight_grad: Any) -> None:
    """Add the blocks in order."""
    variants, blocks, _, columns = partial.shape
    for v in range(variants):
        for b in range(1, blocks):
            for i in range(2):
                for j in range(columns):
                    partial[v, 0, i, j] += partial[v, b, i, j]
        for j in range(columns):
            bias_grad[v * columns + j] = partial[v, 0, 0, j]
            weight_grad[v * columns + j] = partial[v, 0, 1, j]


@inner
def _spread(
    counter: Any, x: Any, dx: Any, stash: Any, weight: Any, mean: Any, rstd: Any, partial: Any, rows: int, columns: int,
    apart: bool,
) -> None:  # fmt: skip
    """dx = rstd · weight · (s - Σ s / N - (x - mean) · rstd² · Σ s (x - mean) / N), s the stash, the last tiles first.

    The stash becomes dx, and is copied where they lie `apart`.
    """
    variants, num, group = partial.shape[0], rows * columns, GROUP * TILE
    center = scratch(period_of(columns), mean)
    scale, slope = scratch(center.size, center), scratch(center.size, center)
    offset, pull = scratch(center.size, center), scratch(center.size, center)
    groups, current = (num + group - 1) // group, -1
    while True:
        piece = groups * variants - 1 - take(counter)
        if piece < 0:
            break
        v, first = piece // groups, piece % groups * group
        if v != current:
            current = v
            constants(v, columns, mean, 0.0, center)
            constants(v, columns, rstd, 1.0, scale)
            constants(v, columns, weight, 1.0, slope)
            constants(0, columns, partial[v, 0, 0], 0.0, offset)
            constants(0, columns, partial[v, 0, 1], 0.0, pull)
            for k in range(center.size):
                slope[k] *= scale[k]
                offset[k] *= slope[k] / rows
                pull[k] *= slope[k] * scale[k] / rows
        size = min(group, num - first)
        _spread_tile(x, stash, v * num, first, size, center, slope, offset, pull)
        if apart:
            store(stash[v * num + first :], size, dx, v * num + first)


@inner
def _spread_tile(
    x: Any, stash: Any, start: int, first: int, size: int, center: Any, slope: Any, offset: Any, pull: Any
) -> None:  # fmt: skip
    period, done = center.size, 0
    column = first % period
    while done < size:
        at = start + first + done
        part = min(period - column, size - done)
        source, target = x[at : at + part], stash[at : at + part]
        m, a = center[column : column + part], slope[column : column + part]
        o, q = offset[column : column + part], pull[column : column + part]
        for i in range(part):
            target[i] = target[i] * a[i] - o[i] - (widen(source[i]) - m[i]) * q[i]
        done += part
        column = 0


@entry
def backward(
    gomp: int, threads: int, like: Any, number: Any, g: int, x: int, dx: int, stash: int, mean: int, rstd: int,
    weight: int, bias: int, weight_grad: int, bias_grad: int, key: int, step: int, p: int, on: int, variants: int,
    rows: int, columns: int, given: bool, code: int,
) -> None:  # fmt: skip
    """All of it, at addresses."""
    counter, num, size = np.zeros(1, np.int64), rows * columns, variants * columns
    x_, dx_ = array_at(x, variants * num, like), array_at(dx, variants * num, like)
    stash_, weight_ = array_at(stash, variants * num, number), optional(weight, size, number)
    mean_, rstd_ = optional(mean, size, number), optional(rstd, size, number)
    depth = depth_of(num, TILE)
    partial = np.empty((variants, (num + depth * TILE - 1) // (depth * TILE), 2, columns), np.float64)
    parallel(gomp, threads, _reduce, (
        counter, array_at(g, variants * num, like), x_, dx_, stash_, weight_, optional(bias, size, number), mean_,
        rstd_, array_at(key, variants, counter), array_at(step, variants, counter),
        array_at(p, variants, np.empty(0, np.float64)), array_at(on, variants, np.empty(0, np.uint8)), num, columns,
        depth, code, given, partial,
    ))  # fmt: skip
    combine_sums(partial, array_at(bias_grad, size, number), array_at(weight_grad, size, number))
    if not given:
        counter[0] = 0
        parallel(gomp, threads, _spread, (
            counter, x_, dx_, stash_, weight_, mean_, rstd_, partial, rows, columns, dx != stash,
        ))  # fmt: skip
