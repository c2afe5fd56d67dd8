"""Philox4x32-10 and what is drawn with it: the twins of `kernels.reference` and of `poise._random.Key`."""

from __future__ import annotations

from typing import Any

import numpy as np

from poise.kernels.cpu._jit import exact, inner
from poise.kernels.cpu._math import cos_sin_of_turn, log_of_uniform
from poise.kernels.cpu._view import part
from poise.kernels.reference import LANES, TILE_BLOCKS

_u, _ul = np.uint32, np.uint64
_M0, _M1 = _ul(0xD2511F53), _ul(0xCD9E8D57)
_W0, _W1 = _u(0x9E3779B9), _u(0xBB67AE85)
_HALF_WORD = _u(0xFFFF)
_TILE = TILE_BLOCKS * LANES


@exact
def _philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    for _ in range(10):
        p0, p1 = _M0 * _ul(c0), _M1 * _ul(c2)
        c0, c1 = _u(p1 >> _ul(32)) ^ c1 ^ k0, _u(p1)
        c2, c3 = _u(p0 >> _ul(32)) ^ c3 ^ k1, _u(p0)
        k0, k1 = _u(k0 + _W0), _u(k1 + _W1)
    return c0, c1, c2, c3


@inner
def words(out: Any, key: Any, step: Any, num_blocks: int) -> None:
    """Fill the uint32 vector `out` with word 0 of all blocks, then word 1, and so on."""
    k0, k1 = _u(key), _u(_ul(key) >> _ul(32))
    s0, s1 = _u(step), _u(_ul(step) >> _ul(32))
    w0, w1 = part(out, 0, num_blocks), part(out, num_blocks, num_blocks)
    w2, w3 = part(out, 2 * num_blocks, num_blocks), part(out, 3 * num_blocks, num_blocks)
    for i in range(num_blocks):
        w0[i], w1[i], w2[i], w3[i] = _philox(_u(i), _u(0), s0, s1, k0, k1)


@inner
def threshold_of(p: float) -> int:
    """round(p · 2^16), at most 2^16 - 1: an element whose 16 bits are below it is dropped."""
    return min(int(np.rint(p * 65536.0)), 65535)


@inner
def mask_tile(out: Any, key: Any, step: Any, tile: int, size: int, threshold: int, kept: Any, dropped: Any) -> None:
    """Fill out[:size] with the mask of the elements of tile `tile`: `kept` or `dropped`."""
    k0, k1 = _u(key), _u(_ul(key) >> _ul(32))
    s0, s1 = _u(step), _u(_ul(step) >> _ul(32))
    m, first, t = (size + 7) // 8, tile * TILE_BLOCKS, _u(threshold)
    # Lanes lie side by side, so that each is written in order; the last one may be short.
    r0, r1, r2, r3 = part(out, 0, m), part(out, m, m), part(out, 2 * m, m), part(out, 3 * m, m)
    r4, r5, r6, r7 = part(out, 4 * m, m), part(out, 5 * m, m), part(out, 6 * m, m), part(out, 7 * m, m)
    for i in range(m):
        a, b, c, d = _philox(_u(first + i), _u(0), s0, s1, k0, k1)
        r0[i] = kept if (a & _HALF_WORD) >= t else dropped
        r1[i] = kept if (a >> _u(16)) >= t else dropped
        r2[i] = kept if (b & _HALF_WORD) >= t else dropped
        r3[i] = kept if (b >> _u(16)) >= t else dropped
        r4[i] = kept if (c & _HALF_WORD) >= t else dropped
        r5[i] = kept if (c >> _u(16)) >= t else dropped
        r6[i] = kept if (d & _HALF_WORD) >= t else dropped
        r7[i] = kept if (d >> _u(16)) >= t else dropped


@inner
def keep_mask(out: Any, size: int, key: Any, step: Any, p: float, scratch: Any) -> None:
    """Fill out[:size] with 0 where dropped and 1 / (keep rate) elsewhere; `scratch` holds a tile of out's type."""
    threshold = threshold_of(p)
    kept, dropped = out.dtype.type(65536.0 / (65536 - threshold)), out.dtype.type(0)
    for tile in range((size + _TILE - 1) // _TILE):
        start = tile * _TILE
        count = min(_TILE, size - start)
        if count == _TILE:
            mask_tile(part(out, start, _TILE), key, step, tile, count, threshold, kept, dropped)
        else:
            mask_tile(scratch, key, step, tile, count, threshold, kept, dropped)
            for i in range(count):
                out[start + i] = scratch[i]


@inner
def uniform(out: Any, size: int, key: Any, step: Any, bits: Any) -> None:
    """Fill out[:size] with multiples of 2^-24 in [0, 1); `bits` is uint32 scratch of size + 3."""
    words(bits, key, step, (size + 3) // 4)
    unit = out.dtype.type(2.0**-24)
    for i in range(size):
        out[i] = out.dtype.type(bits[i] >> _u(8)) * unit


@inner
def add_normal(out: Any, size: int, std: float, key: Any, step: Any, bits: Any) -> None:
    """Add std · N(0, 1) to out[:size] by Box and Muller in float64; `bits` is uint32 scratch of size + 4."""
    half = (size + 1) // 2
    words(bits, key, step, (2 * half + 3) // 4)
    first, second = part(bits, 0, half), part(bits, half, half)
    scale = out.dtype.type(std)
    upper, lower = part(out, 0, half), part(out, half, size - half)
    for i in range(size - half):
        radius = np.sqrt(-2.0 * log_of_uniform(first[i]))
        cosine, sine = cos_sin_of_turn(second[i])
        upper[i] += scale * out.dtype.type(radius * cosine)
        lower[i] += scale * out.dtype.type(radius * sine)
    if size % 2:
        cosine, _ = cos_sin_of_turn(second[half - 1])
        upper[half - 1] += scale * out.dtype.type(np.sqrt(-2.0 * log_of_uniform(first[half - 1])) * cosine)


@inner
def permutation(out: Any, size: int, key: Any, step: Any, bits: Any) -> None:
    """Fill the int64 vector out[:size] with the order of 63-bit random numbers; `bits` is scratch of 2 · size + 3.

    Uniform numbers hardly miss their place if they are dealt out by their first bits, so insertion does the rest.
    """
    words(bits, key, step, (2 * size + 3) // 4)
    places = 0
    while (1 << places) < size:
        places += 1
    shift, starts = np.int64(63 - places), np.zeros((1 << places) + 1, np.int64)
    for i in range(size):
        starts[(_number(bits, size, i) >> shift) + 1] += 1
    for i in range(1, starts.size):
        starts[i] += starts[i - 1]
    drawn = np.empty(size, np.int64)
    for i in range(size):
        one = _number(bits, size, i)
        at = starts[one >> shift]
        starts[one >> shift] += 1
        drawn[at], out[at] = one, i
    for i in range(1, size):
        one, row, at = drawn[i], out[i], i
        while at > 0 and drawn[at - 1] > one:
            drawn[at], out[at] = drawn[at - 1], out[at - 1]
            at -= 1
        drawn[at], out[at] = one, row


@inner
def _number(bits: Any, size: int, i: int) -> Any:
    return (np.int64(bits[i]) << 31) | (np.int64(bits[size + i]) >> 1)
