"""Masks of Philox4x32-10 on the device: twin of `kernels.reference.keep_mask`."""

from __future__ import annotations

import triton.language as tl
from triton.language import constexpr, tensor

from poise.kernels.cuda._jit import LANES, TILE, TILE_BLOCKS, kernel


@kernel
def threshold_of(p: tensor, on: tensor, v: tensor) -> tensor:
    """round(p · 2^16), half to even, at most 2^16 - 1, of variant v; 0 where its dropout is off."""
    scaled = tl.load(p + v).to(tl.float64) * 65536.0
    low = scaled.to(tl.int32)
    rest = scaled - low.to(tl.float64)
    up = (rest > 0.5) | ((rest == 0.5) & (low % 2 == 1))
    return tl.where(tl.load(on + v), tl.minimum(low + up.to(tl.int32), 65535), 0).to(tl.uint32)


@kernel
def scale_of(threshold: tensor, number: constexpr) -> tensor:
    """1 / (effective keep rate), rounded once."""
    return (65536.0 / (65536.0 - threshold.to(tl.float64))).to(number)


@kernel
def draw(key: tensor, step: tensor, v: tensor, block: tensor) -> tensor:
    """The four words of each block at `step` of the stream `key`, both of variant v."""
    now = tl.load(step + v)
    return tl.philox(tl.load(key + v), block.to(tl.uint32), 0, now.to(tl.uint32), (now >> 32).to(tl.uint32))


@kernel
def word_of(words: tensor, pair: tensor) -> tensor:
    """Word `pair` of each block, which has the lanes 2 · pair and 2 · pair + 1."""
    return tl.where(pair < 2, tl.where(pair == 0, words[0], words[1]), tl.where(pair == 2, words[2], words[3]))


@kernel
def is_kept(word: tensor, half: constexpr, threshold: tensor) -> tensor:
    """Whether the elements that own the low (0) or high (1) half of `word` survive."""
    return ((word >> (16 * half)) & 0xFFFF) >= threshold


@kernel
def write_mask(mask: tensor, key: tensor, step: tensor, p: tensor, on: tensor, num: tensor, tiles: tensor) -> None:
    """Whether each element survives, as a byte, one tile a program.

    Where elements are visited in another order than that of tiles, reading a byte costs less than drawing its block.
    """
    v, tile = (tl.program_id(0) // tiles).to(tl.int64), (tl.program_id(0) % tiles).to(tl.int64)
    size = tl.minimum(num - tile * TILE, TILE).to(tl.int32)
    words, threshold = draw(key, step, v, tile * TILE_BLOCKS + tl.arange(0, TILE_BLOCKS)), threshold_of(p, on, v)
    # A whole tile has constant offsets, which lets stores be wide.
    if size == TILE:
        _write_part(mask + v * num + tile * TILE, words, threshold, size, TILE_BLOCKS)
    else:
        _write_part(mask + v * num + tile * TILE, words, threshold, size, (size + LANES - 1) // LANES)


@kernel
def _write_part(mask: tensor, words: tensor, threshold: tensor, size: tensor, depth: tensor) -> None:
    index = tl.arange(0, TILE_BLOCKS)
    for lane in tl.static_range(LANES):
        place = lane * depth + index
        kept = is_kept(words[lane // 2], lane % 2, threshold)
        tl.store(mask + place, kept.to(tl.uint8), mask=(index < depth) & (place < size))
