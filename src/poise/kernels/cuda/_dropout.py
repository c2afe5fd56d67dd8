"""Dropout on the device: twin of `_chain_reference.dropout`."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor
from triton.language import constexpr, tensor

from poise.kernels.cuda._jit import (
    COMPUTED,
    LANES,
    TILE,
    TILE_BLOCKS,
    dense,
    kernel,
    launch,
    on_device_of,
    settings_of,
    tiles_of,
)
from poise.kernels.cuda._philox import draw, is_kept, scale_of, threshold_of, word_of


def dropout_forward(x: Tensor, key: Tensor, step: Tensor, p: Tensor, on: Tensor) -> Tensor:
    """x times the masks."""
    x = dense(x)
    y = torch.empty_like(x)
    if x.numel():
        num, number = x[0].numel(), COMPUTED[x.dtype][1]
        tiles = tiles_of(num)
        with on_device_of(x):
            settings = settings_of(key, step, p, on)
            launch(_dropout, (x.shape, x.dtype), tiles * len(x), x, y, *settings, num, tiles, number)
    return y


dropout_backward = dropout_forward  # a product with the masks is its own transpose


@kernel
def _dropout(
    x: tensor, y: tensor, key: tensor, step: tensor, p: tensor, on: tensor, num: tensor, tiles: tensor,
    number: constexpr,
) -> None:  # fmt: skip
    v, tile = (tl.program_id(0) // tiles).to(tl.int64), (tl.program_id(0) % tiles).to(tl.int64)
    start = tile * TILE
    size = tl.minimum(num - start, TILE).to(tl.int32)
    words = draw(key, step, v, tile * TILE_BLOCKS + tl.arange(0, TILE_BLOCKS))
    threshold = threshold_of(p, on, v)
    # A whole tile has constant offsets, which lets loads be wide.
    if size == TILE:
        _part(x + v * num + start, y + v * num + start, words, threshold, size, TILE_BLOCKS, True, number)
    else:
        depth = (size + LANES - 1) // LANES
        _part(x + v * num + start, y + v * num + start, words, threshold, size, depth, False, number)


@kernel
def _part(
    x: tensor, y: tensor, words: tensor, threshold: tensor, size: tensor, depth: tensor, whole: constexpr,
    number: constexpr,
) -> None:  # fmt: skip
    """y = x · mask of one tile."""
    kept, index = scale_of(threshold, number), tl.arange(0, TILE_BLOCKS)
    for pair in range(LANES // 2):
        word = word_of(words, pair)
        for half in tl.static_range(2):
            place = (2 * pair + half) * depth + index
            valid = index < depth
            if not whole:
                valid &= place < size
            value = tl.load(x + place, mask=valid, other=0.0).to(number)
            value *= tl.where(is_kept(word, half, threshold), kept, 0.0)
            tl.store(y + place, value.to(y.dtype.element_ty), mask=valid)
