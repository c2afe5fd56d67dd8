"""The sums of the way back: of the gradient of the norm's output, and of it times (x - mean) · rstd."""

from __future__ import annotations

from collections.abc import Hashable

import torch
import triton.language as tl
from torch import Tensor
from triton.language import constexpr, tensor

from poise.kernels.cuda._activation import slope_of
from poise.kernels.cuda._affine import normalize, parameter
from poise.kernels.cuda._jit import COMPUTED, kernel, launch, pieces, tiles_of
from poise.kernels.cuda._moments import COLUMNS, ROWS, depth_of
from poise.kernels.cuda._philox import scale_of, threshold_of, write_mask

_MOST_AT_ONCE, _FEW_COLUMNS = 64, 16


def sums(
    g: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, rstd: Tensor,
    settings: tuple[Tensor, ...], kind: Hashable, norm: str, activation: str, weight_grad: Tensor, bias_grad: Tensor,
    totals: Tensor,
) -> None:  # fmt: skip
    """Fill the gradients of weight and bias, (V, C); and for layer norm `totals`, (V, 2, N), the sums of rows.

    `kind` is that of `launch`.
    """
    variants, rows, columns = x.shape
    (dtype, number), num, (key, step, p, on) = COMPUTED[x.dtype], rows * columns, settings
    mask = torch.empty(variants, num, dtype=torch.uint8, device=x.device)
    tiles = tiles_of(num)
    launch(write_mask, x.shape, tiles * variants, mask, key, step, p, on, num, tiles)
    # A program of layer norm sees whole rows, since it sums over them, too.
    depth, span = (ROWS, columns) if norm == "layer" else (depth_of(rows), COLUMNS)
    blocks, chunks = pieces(rows, depth), pieces(columns, span)
    partial = torch.empty(variants, blocks, 2, columns, dtype=dtype, device=x.device)
    launch(
        _sums, kind, chunks * blocks * variants, g, x, weight, bias, mean, rstd, mask, p, on, partial, totals, rows,
        columns, num, depth, span, blocks, chunks, norm, activation, number, ROWS, COLUMNS, num_warps=8,
    )  # fmt: skip
    chunks = pieces(columns, _FEW_COLUMNS)
    launch(
        _combine, kind, chunks * variants, partial, weight_grad, bias_grad, columns, blocks, chunks, _MOST_AT_ONCE,
        _FEW_COLUMNS,
    )  # fmt: skip


@kernel
def _sums(
    g: tensor, x: tensor, weight: tensor, bias: tensor, mean: tensor, rstd: tensor, mask: tensor, p: tensor, on: tensor,
    partial: tensor, totals: tensor, rows: tensor, columns: tensor, num: tensor, depth: tensor, span: tensor,
    blocks: tensor, chunks: tensor, norm: constexpr, activation: constexpr, number: constexpr, height: constexpr,
    width: constexpr,
) -> None:  # fmt: skip
    """partial[v, b] = the sums over rows b · depth …, by column; for layer norm also those over columns, by row."""
    chunk, block = tl.program_id(0) % chunks, tl.program_id(0) // chunks % blocks
    v = (tl.program_id(0) // chunks // blocks).to(tl.int64)
    kept, last = scale_of(threshold_of(p, on, v), number), tl.minimum((block + 1) * depth, rows)
    row_total, row_moment = tl.zeros((height,), number), tl.zeros((height,), number)
    for left in range(chunk * span, tl.minimum((chunk + 1) * span, columns), width):
        column = left + tl.arange(0, width)
        inside = column < columns
        safe = tl.minimum(column, columns - 1)
        slope = parameter(weight, v, safe, columns, 1.0, kept)
        shift = parameter(bias, v, safe, columns, 0.0, kept)
        # Sums over rows wait for the end: threads would have to meet for each.
        sums_g, sums_gu = tl.zeros((height, width), number), tl.zeros((height, width), number)
        for first in range(block * depth, last, height):
            row = (first + tl.arange(0, height)).to(tl.int64)
            valid = (row < last)[:, None] & inside[None, :]
            place = row[:, None] * columns + column[None, :]
            value = tl.load(x + v * num + place, mask=valid, other=0.0).to(number)
            grad = tl.load(g + v * num + place, mask=valid, other=0.0).to(number)
            unit, _ = normalize(
                value, mean, rstd, v, tl.minimum(row, rows - 1)[:, None], safe[None, :], rows, columns, norm
            )
            grad *= tl.where(tl.load(mask + v * num + place, mask=valid, other=0) != 0, kept, 0.0)
            grad *= slope_of(unit * slope[None, :] + shift[None, :], activation)
            sums_g += grad
            sums_gu += grad * unit
            if norm == "layer":  # where this loop runs once
                row_total += tl.sum(grad * slope[None, :], 1)
                row_moment += tl.sum(grad * slope[None, :] * unit, 1)
        at = partial + (v * blocks + block) * 2 * columns + column
        tl.store(at, tl.sum(sums_g, 0), mask=inside)
        tl.store(at + columns, tl.sum(sums_gu, 0), mask=inside)
    if norm == "layer":
        row = block * depth + tl.arange(0, height)
        tl.store(totals + v * 2 * rows + row, row_total, mask=row < rows)
        tl.store(totals + v * 2 * rows + rows + row, row_moment, mask=row < rows)


@kernel
def _combine(
    partial: tensor, weight_grad: tensor, bias_grad: tensor, columns: tensor, blocks: tensor, chunks: tensor,
    most: constexpr, width: constexpr,
) -> None:  # fmt: skip
    """Add up the blocks in order, in float64."""
    chunk, v = tl.program_id(0) % chunks, (tl.program_id(0) // chunks).to(tl.int64)
    column = chunk * width + tl.arange(0, width)
    total, moment = tl.zeros((width,), tl.float64), tl.zeros((width,), tl.float64)
    for first in range(0, blocks, most):
        block = first + tl.arange(0, most)
        valid = (block < blocks)[:, None] & (column < columns)[None, :]
        at = partial + (v * blocks + block)[:, None] * 2 * columns + column[None, :]
        total += tl.sum(tl.load(at, mask=valid, other=0.0).to(tl.float64), 0)
        moment += tl.sum(tl.load(at + columns, mask=valid, other=0.0).to(tl.float64), 0)
    at = v * columns + column
    tl.store(bias_grad + at, total.to(bias_grad.dtype.element_ty), mask=column < columns)
    tl.store(weight_grad + at, moment.to(weight_grad.dtype.element_ty), mask=column < columns)
