"""Dropout on all threads of torch's pool: twin of `_chain_reference.dropout`. Signatures stand in `_chain`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from poise.kernels.cpu._bfloat import narrow, widen
from poise.kernels.cpu._bound import NOW, Calls, Later, Run
from poise.kernels.cpu._jit import entry, inner
from poise.kernels.cpu._memory import empty_like, fence, stream
from poise.kernels.cpu._philox import mask_tile, threshold_of
from poise.kernels.cpu._pool import array_at, parallel, take, team
from poise.kernels.reference import LANES, TILE_BLOCKS

TILE = TILE_BLOCKS * LANES
PART = TILE // 4  # elements that are worked on at a time: their values and their tile's mask fit the first cache
_LINE = 64
_STREAMED = 8 << 20  # bytes of which little is still in the cache when somebody reads them
_BLOCK, _MOST_BLOCKS = 8 * TILE, 64
_GROUP = 4 * TILE  # elements of a piece of work
# For each dtype of torch: how its numbers are stored, and in what they are computed.
LIKE = {
    torch.float32: (np.empty(0, np.float32), np.empty(0, np.float32)),
    torch.float64: (np.empty(0, np.float64), np.empty(0, np.float64)),
    torch.bfloat16: (np.empty(0, np.uint16), np.empty(0, np.float32)),
}


def threads_for(num: int) -> tuple[int, int]:
    """`team`, of no more threads than `num` elements are worth."""
    gomp, threads = team()
    threads = min(threads, 1 + num // _GROUP)
    return (gomp, threads) if threads > 1 else (0, 1)


def settings_at(key: Tensor, step: Tensor, p: Tensor, on: Tensor, calls: Calls) -> tuple[Tensor, ...]:
    """The settings in the dtypes and layout that machine code reads."""
    fixed = calls.fixed
    return fixed(key, torch.int64), fixed(step, torch.int64), fixed(p, torch.float64), fixed(on, torch.bool)


def dropout_forward(x: Tensor, key: Tensor, step: Tensor, p: Tensor, on: Tensor) -> Tensor:
    """x times the masks."""
    y = empty_like(x)
    _multiply(NOW, x, key, step, p, on, y)
    return y


def bound_dropout(x: Tensor, key: Tensor, step: Tensor, p: Tensor, on: Tensor, *, out: tuple[Tensor]) -> list[Run]:
    """What makes x times the masks in `out`."""
    later = Later()
    _multiply(later, x, key, step, p, on, *out)
    return later.runs


def _multiply(calls: Calls, x: Tensor, key: Tensor, step: Tensor, p: Tensor, on: Tensor, y: Tensor) -> None:
    x = calls.fixed(x, x.dtype)
    settings, num = settings_at(key, step, p, on, calls), x.numel()
    sizes = x.shape[0], num // max(1, x.shape[0])
    calls.kernel(_dropout, (*threads_for(num), *LIKE[x.dtype]), (x, y, *settings), sizes)


dropout_backward = dropout_forward  # a product with the masks is its own transpose


@inner
def depth_of(num: int, unit: int) -> int:
    """How many units of elements make a block, whose sums are added up before blocks are combined in order.

    It depends on the shape alone. Few blocks keep combining cheap, many keep threads busy.
    """
    return (max(_BLOCK, (num + _MOST_BLOCKS - 1) // _MOST_BLOCKS) + unit - 1) // unit


@inner
def optional(address: int, size: int, like: Any) -> Any:
    """The array at `address`, an empty one at 0."""
    return array_at(address, size if address != 0 else 0, like)


@inner
def scratch(size: int, number: Any) -> Any:
    """An uninitialized vector of number's type that starts a cache line: vectors that straddle lines load slower."""
    whole = np.empty(size + _LINE // number.itemsize, number.dtype)
    start = -whole.ctypes.data % _LINE // number.itemsize
    return whole[start : start + size]


@inner
def multiply_mask(
    values: Any, first: int, size: int, num: int, key: Any, step: Any, threshold: int, mask: Any, drawn: Any
) -> None:
    """values[:size] *= the mask of elements first … of `num`; `mask` holds tile drawn[0], which spares drawing it."""
    number = values.dtype.type
    done = 0
    while done < size:
        tile = (first + done) // TILE
        start = first + done - tile * TILE
        if drawn[0] != tile:
            kept = number(65536.0 / (65536 - threshold))
            mask_tile(mask, key, step, tile, min(TILE, num - tile * TILE), threshold, kept, number(0))
            drawn[0] = tile
        part = min(TILE - start, size - done)
        some, scale = values[done : done + part], mask[start : start + part]
        for i in range(part):
            some[i] *= scale[i]
        done += part


@inner
def load(x: Any, first: int, size: int, values: Any) -> None:
    """values[:size] = x[first : first + size]."""
    source, target = x[first : first + size], values[:size]
    for i in range(size):
        target[i] = widen(source[i])


@inner
def store(values: Any, size: int, y: Any, first: int) -> None:
    """y[first : first + size] = values[:size]; past the cache where y is too large for it."""
    if y.size * y.itemsize >= _STREAMED and stream(values, size, y, first):
        return
    source, target = values[:size], y[first : first + size]
    for i in range(size):
        target[i] = narrow(source[i], y)


@inner
def _tiles(counter: Any, number: Any, x: Any, y: Any, key: Any, step: Any, p: Any, on: Any, num: int) -> None:
    values, mask, drawn = scratch(TILE, number), scratch(TILE, number), np.empty(1, np.int64)
    groups = (num + _GROUP - 1) // _GROUP
    while True:
        piece = take(counter)
        if piece >= groups * key.size:
            break
        v, start = piece // groups, piece % groups * _GROUP
        threshold = threshold_of(p[v]) if on[v] else 0
        drawn[0] = -1
        for first in range(start, min(start + _GROUP, num), TILE):
            size = min(TILE, num - first)
            load(x, v * num + first, size, values)
            if threshold > 0:
                multiply_mask(values, first, size, num, key[v], step[v], threshold, mask, drawn)
            store(values, size, y, v * num + first)
    fence()


@entry
def _dropout(
    gomp: int, threads: int, like: Any, number: Any, x: int, y: int, key: int, step: int, p: int, on: int,
    variants: int, num: int,
) -> None:  # fmt: skip
    counter = np.zeros(1, np.int64)
    parallel(gomp, threads, _tiles, (
        counter, number, array_at(x, variants * num, like), array_at(y, variants * num, like),
        array_at(key, variants, counter), array_at(step, variants, counter),
        array_at(p, variants, np.empty(0, np.float64)), array_at(on, variants, np.empty(0, np.uint8)), num,
    ))  # fmt: skip
