"""Normalization + nonlinearity + dropout, there and back: twin of `_chain_reference.norm_act_dropout`.

What is done number by number goes by tiles of the mask, whose blocks are then drawn once. Sums over rows go by
rectangles, which read the mask from bits.
"""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor
from triton.language import constexpr, tensor

from poise.kernels.cuda._activation import activate, slope_of
from poise.kernels.cuda._affine import locate, normalize, parameter
from poise.kernels.cuda._jit import (
    COMPUTED,
    LANES,
    TILE,
    TILE_BLOCKS,
    dense,
    kernel,
    launch,
    on_device_of,
    optional,
    settings_of,
    tiles_of,
)
from poise.kernels.cuda._moments import moments
from poise.kernels.cuda._philox import draw, is_kept, scale_of, threshold_of, word_of
from poise.kernels.cuda._sums import sums


def chain_forward(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, rstd: Tensor | None, key: Tensor,
    step: Tensor, p: Tensor, eps: Tensor, on: Tensor, norm: str, activation: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """y, mean, rstd."""
    x, (dtype, number) = dense(x), COMPUTED[x.dtype]
    variants, rows, columns = x.shape
    y = torch.empty_like(x)
    given = mean is not None and rstd is not None
    if mean is None or rstd is None:
        size = {"batch": columns, "layer": rows, "none": 0}[norm]
        mean, rstd = (torch.empty(variants, size, dtype=dtype, device=x.device) for _ in range(2))
        if not x.numel():
            mean.fill_(torch.nan), rstd.fill_(torch.nan)  # as torch: a mean of nothing
    else:
        # What an operator returns must not be what it was given.
        mean, rstd = dense(mean, dtype).clone(), dense(rstd, dtype).clone()
    if not x.numel():
        return y, mean, rstd
    tiles, kind = tiles_of(rows * columns), (x.shape, x.dtype, weight is None, bias is None, norm, activation)
    with on_device_of(x):
        if norm != "none" and not given:
            moments(x, dense(eps, torch.float64), norm, mean, rstd)
        launch(
            _apply, kind, tiles * variants, x, y, optional(weight, dtype), optional(bias, dtype), mean, rstd,
            *settings_of(key, step, p, on), rows, columns, rows * columns, tiles, norm, activation, number,
        )  # fmt: skip
    return y, mean, rstd


def chain_backward(
    g: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, rstd: Tensor, key: Tensor,
    step: Tensor, p: Tensor, on: Tensor, norm: str, activation: str, given: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dx, dweight, dbias."""
    g, x, (dtype, number) = dense(g), dense(x), COMPUTED[x.dtype]
    variants, rows, columns = x.shape
    dx = torch.empty_like(x)
    weight_grad, bias_grad = (torch.empty(variants, columns, dtype=dtype, device=x.device) for _ in range(2))
    if not x.numel():
        return dx, weight_grad.zero_(), bias_grad.zero_()
    mean, rstd = dense(mean, dtype), dense(rstd, dtype)
    weight, bias, settings = optional(weight, dtype), optional(bias, dtype), settings_of(key, step, p, on)
    totals = torch.empty(variants, 2, rows, dtype=dtype, device=x.device) if norm == "layer" else weight_grad
    tiles, kind = tiles_of(rows * columns), (x.shape, x.dtype, weight is None, bias is None, norm, activation, given)
    with on_device_of(x):
        sums(g, x, weight, bias, mean, rstd, settings, kind, norm, activation, weight_grad, bias_grad, totals)
        launch(
            _spread, kind, tiles * variants, g, x, dx, weight, bias, mean, rstd, weight_grad, bias_grad, totals,
            *settings, rows, columns, rows * columns, tiles, norm, activation, given, number,
        )  # fmt: skip
    return dx, weight_grad, bias_grad


@kernel
def _apply(
    x: tensor, y: tensor, weight: tensor, bias: tensor, mean: tensor, rstd: tensor, key: tensor, step: tensor,
    p: tensor, on: tensor, rows: tensor, columns: tensor, num: tensor, tiles: tensor, norm: constexpr,
    activation: constexpr, number: constexpr,
) -> None:  # fmt: skip
    v, tile = (tl.program_id(0) // tiles).to(tl.int64), (tl.program_id(0) % tiles).to(tl.int64)
    size = tl.minimum(num - tile * TILE, TILE).to(tl.int32)
    words, threshold = draw(key, step, v, tile * TILE_BLOCKS + tl.arange(0, TILE_BLOCKS)), threshold_of(p, on, v)
    # A whole tile has constant offsets, which lets loads be wide.
    if size == TILE:
        _apply_part(
            x, y, weight, bias, mean, rstd, words, threshold, v, tile, size, TILE_BLOCKS, rows, columns, num, True,
            norm, activation, number,
        )  # fmt: skip
    else:
        _apply_part(
            x, y, weight, bias, mean, rstd, words, threshold, v, tile, size, (size + LANES - 1) // LANES, rows, columns,
            num, False, norm, activation, number,
        )  # fmt: skip


@kernel
def _apply_part(
    x: tensor, y: tensor, weight: tensor, bias: tensor, mean: tensor, rstd: tensor, words: tensor, threshold: tensor,
    v: tensor, tile: tensor, size: tensor, depth: tensor, rows: tensor, columns: tensor, num: tensor, whole: constexpr,
    norm: constexpr, activation: constexpr, number: constexpr,
) -> None:  # fmt: skip
    """y = dropout(act((x - mean) · rstd · weight + bias)) of one tile."""
    kept, start = scale_of(threshold, number), v * num + tile * TILE
    for pair in range(LANES // 2):
        word = word_of(words, pair)
        for half in tl.static_range(2):
            place, valid, row, column = locate(2 * pair + half, depth, size, tile, rows, columns, whole)
            value = tl.load(x + start + place, mask=valid, other=0.0).to(number)
            unit, _ = normalize(value, mean, rstd, v, row, column, rows, columns, norm)
            slope = parameter(weight, v, column, columns, 1.0, kept)
            shift = parameter(bias, v, column, columns, 0.0, kept)
            value = activate(unit * slope + shift, activation)
            value *= tl.where(is_kept(word, half, threshold), kept, 0.0)
            tl.store(y + start + place, value.to(y.dtype.element_ty), mask=valid)


@kernel
def _spread(
    g: tensor, x: tensor, dx: tensor, weight: tensor, bias: tensor, mean: tensor, rstd: tensor, weight_grad: tensor,
    bias_grad: tensor, totals: tensor, key: tensor, step: tensor, p: tensor, on: tensor, rows: tensor, columns: tensor,
    num: tensor, tiles: tensor, norm: constexpr, activation: constexpr, given: constexpr, number: constexpr,
) -> None:  # fmt: skip
    v, tile = (tl.program_id(0) // tiles).to(tl.int64), (tl.program_id(0) % tiles).to(tl.int64)
    size = tl.minimum(num - tile * TILE, TILE).to(tl.int32)
    words, threshold = draw(key, step, v, tile * TILE_BLOCKS + tl.arange(0, TILE_BLOCKS)), threshold_of(p, on, v)
    if size == TILE:
        _spread_part(
            g, x, dx, weight, bias, mean, rstd, weight_grad, bias_grad, totals, words, threshold, v, tile, size,
            TILE_BLOCKS, rows, columns, num, True, norm, activation, given, number,
        )  # fmt: skip
    else:
        _spread_part(
            g, x, dx, weight, bias, mean, rstd, weight_grad, bias_grad, totals, words, threshold, v, tile, size,
            (size + LANES - 1) // LANES, rows, columns, num, False, norm, activation, given, number,
        )  # fmt: skip


@kernel
def _spread_part(
    g: tensor, x: tensor, dx: tensor, weight: tensor, bias: tensor, mean: tensor, rstd: tensor, weight_grad: tensor,
    bias_grad: tensor, totals: tensor, words: tensor, threshold: tensor, v: tensor, tile: tensor, size: tensor,
    depth: tensor, rows: tensor, columns: tensor, num: tensor, whole: constexpr, norm: constexpr, activation: constexpr,
    given: constexpr, number: constexpr,
) -> None:  # fmt: skip
    """dx = rstd · (h - mean of h - u · mean of (h u)), u = (x - mean) · rstd, h = du; rstd · h for given statistics."""
    kept, start = scale_of(threshold, number), v * num + tile * TILE
    for pair in range(LANES // 2):
        word = word_of(words, pair)
        for half in tl.static_range(2):
            place, valid, row, column = locate(2 * pair + half, depth, size, tile, rows, columns, whole)
            value = tl.load(x + start + place, mask=valid, other=0.0).to(number)
            grad = tl.load(g + start + place, mask=valid, other=0.0).to(number)
            unit, scale = normalize(value, mean, rstd, v, row, column, rows, columns, norm)
            slope = parameter(weight, v, column, columns, 1.0, kept)
            shift = parameter(bias, v, column, columns, 0.0, kept)
            grad *= tl.where(is_kept(word, half, threshold), kept, 0.0)
            grad *= slope_of(unit * slope + shift, activation)
            if norm == "layer":
                at = v * 2 * rows + row
                grad = grad * slope - (tl.load(totals + at) + unit * tl.load(totals + rows + at)) / columns
            elif norm == "batch" and not given:
                at = v * columns + column
                grad = slope * (grad - (tl.load(bias_grad + at) + unit * tl.load(weight_grad + at)) / rows)
            else:
                grad *= slope
            tl.store(dx + start + place, (grad * scale).to(dx.dtype.element_ty), mask=valid)
