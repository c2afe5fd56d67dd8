"""Means and 1 / sqrt(biased variance + eps) of columns or rows, by Chan, Golub and LeVeque's formula (1979).

Where |mean| >> sd, squares would cancel, and so would differences of means of pieces: first of all, the first number
of each column or row is taken off it, and then a piece's squares are taken about its own mean.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language import constexpr, tensor

from poise.kernels.cuda._jit import COMPUTED, kernel, launch, pieces

ROWS, COLUMNS = 32, 64  # a piece: rows of 128 bytes or more, and 16 elements for each thread of four warps
MOST_BLOCKS = 64
_FEW_COLUMNS, _ROW_PIECE, _LONGEST = 16, 4096, 1024


def depth_of(rows: int) -> int:
    """Rows in a block whose sums are combined later: by the shape of a variant alone, so that its bits are its own."""
    return ROWS * pieces(pieces(rows, ROWS), MOST_BLOCKS)


def moments(x: Tensor, eps: Tensor, norm: str, mean: Tensor, rstd: Tensor) -> None:
    """Fill `mean` and `rstd`, (V, C) for "batch" or (V, N) for "layer", from contiguous x."""
    variants, rows, columns = x.shape
    (dtype, number), kind = COMPUTED[x.dtype], (x.shape, x.dtype)
    if norm == "layer":
        width = min(triton.next_power_of_2(columns), _LONGEST)
        height = max(1, min(_ROW_PIECE // width, ROWS))
        groups = pieces(rows, height)
        launch(
            _row_moments, kind, groups * variants, x, mean, rstd, eps, rows, columns, groups, number, height, width
        )  # fmt: skip
        return
    depth, chunks = depth_of(rows), pieces(columns, COLUMNS)
    blocks = pieces(rows, depth)
    partial = torch.empty(variants, blocks, 2, columns, dtype=dtype, device=x.device)
    launch(
        _column_moments, kind, chunks * blocks * variants, x, partial, rows, columns, depth, blocks, chunks, number,
        ROWS, COLUMNS,
    )  # fmt: skip
    chunks = pieces(columns, _FEW_COLUMNS)
    launch(
        _combine_moments, kind, chunks * variants, x, partial, mean, rstd, eps, rows, columns, depth, blocks, chunks,
        MOST_BLOCKS, _FEW_COLUMNS,
    )  # fmt: skip


@kernel
def _merge(
    count: tensor, mean: tensor, spread: tensor, values: tensor, valid: tensor, added: tensor, axis: constexpr
) -> tensor:  # fmt: skip
    """Mean and sum of squared distances from it, of `count` numbers and `added` further ones along `axis`."""
    center = tl.sum(values, axis) / added
    away = tl.where(valid, values - tl.expand_dims(center, axis), 0.0)
    step = center - mean
    share = added / (count + added)
    return mean + step * share, spread + tl.sum(away * away, axis) + step * step * (count * share)


@kernel
def _column_moments(
    x: tensor, partial: tensor, rows: tensor, columns: tensor, depth: tensor, blocks: tensor, chunks: tensor,
    number: constexpr, height: constexpr, width: constexpr,
) -> None:  # fmt: skip
    """partial[v, b] = mean and sum of squared distances from it, of each column in rows b · depth … of variant v."""
    chunk, block = tl.program_id(0) % chunks, tl.program_id(0) // chunks % blocks
    v = (tl.program_id(0) // chunks // blocks).to(tl.int64)
    column, last = chunk * width + tl.arange(0, width), tl.minimum((block + 1) * depth, rows)
    shift = tl.load(x + v * rows * columns + column, mask=column < columns, other=0.0).to(number)[None, :]
    mean, spread = tl.zeros((width,), number), tl.zeros((width,), number)
    for first in range(block * depth, last, height):
        row = first + tl.arange(0, height)
        valid = (row < last)[:, None] & (column < columns)[None, :]
        at = x + (v * rows + row)[:, None] * columns + column[None, :]
        values = tl.where(valid, tl.load(at, mask=valid, other=0.0).to(number) - shift, 0.0)
        count, added = (first - block * depth).to(number), tl.minimum(last - first, height).to(number)
        mean, spread = _merge(count, mean, spread, values, valid, added, 0)
    at = partial + (v * blocks + block) * 2 * columns + column
    tl.store(at, mean, mask=column < columns)
    tl.store(at + columns, spread, mask=column < columns)


@kernel
def _combine_moments(
    x: tensor, partial: tensor, mean: tensor, rstd: tensor, eps: tensor, rows: tensor, columns: tensor, depth: tensor,
    blocks: tensor, chunks: tensor, most: constexpr, width: constexpr,
) -> None:  # fmt: skip
    """Of all rows, in float64."""
    chunk, v = tl.program_id(0) % chunks, (tl.program_id(0) // chunks).to(tl.int64)
    column, block = chunk * width + tl.arange(0, width), tl.arange(0, most)
    valid = (block < blocks)[:, None] & (column < columns)[None, :]
    at = partial + (v * blocks + block)[:, None] * 2 * columns + column[None, :]
    centers = tl.load(at, mask=valid, other=0.0).to(tl.float64)
    spreads = tl.load(at + columns, mask=valid, other=0.0).to(tl.float64)
    counts = tl.maximum(tl.minimum(depth, rows - block * depth), 0).to(tl.float64)[:, None]
    center = tl.sum(centers * counts, 0) / rows
    away = centers - center[None, :]
    var = tl.sum(spreads + counts * away * away, 0) / rows
    center += tl.load(x + v * rows * columns + column, mask=column < columns, other=0.0).to(tl.float64)
    _store(mean, rstd, v * columns + column, column < columns, center, var, tl.load(eps + v))


@kernel
def _row_moments(
    x: tensor, mean: tensor, rstd: tensor, eps: tensor, rows: tensor, columns: tensor, groups: tensor,
    number: constexpr, height: constexpr, width: constexpr,
) -> None:  # fmt: skip
    """Of each row, `height` rows a program."""
    group, v = tl.program_id(0) % groups, (tl.program_id(0) // groups).to(tl.int64)
    row = group * height + tl.arange(0, height)
    center, spread = tl.zeros((height,), number), tl.zeros((height,), number)
    shift = tl.load(x + (v * rows + row) * columns, mask=row < rows, other=0.0).to(number)
    one = tl.full((), 1.0, number)  # a plain number would make the counts float32
    for first in range(0, columns, width):
        column = first + tl.arange(0, width)
        valid = (row < rows)[:, None] & (column < columns)[None, :]
        at = x + (v * rows + row)[:, None] * columns + column[None, :]
        values = tl.where(valid, tl.load(at, mask=valid, other=0.0).to(number) - shift[:, None], 0.0)
        added = tl.minimum(columns - first, width)
        center, spread = _merge(first * one, center, spread, values, valid, added * one, 1)
    center, var = shift.to(tl.float64) + center.to(tl.float64), spread.to(tl.float64) / columns
    _store(mean, rstd, v * rows + row, row < rows, center, var, tl.load(eps + v))


@kernel
def _store(mean: tensor, rstd: tensor, at: tensor, valid: tensor, center: tensor, var: tensor, eps: tensor) -> None:
    """In float64, in which square roots are rounded rightly on every device."""
    scale = 1.0 / tl.sqrt(var + eps.to(tl.float64))
    tl.store(mean + at, center.to(mean.dtype.element_ty), mask=valid)
    tl.store(rstd + at, scale.to(rstd.dtype.element_ty), mask=valid)
