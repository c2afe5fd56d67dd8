"""What `poise._random.Key` draws, as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from poise.kernels.cpu import _philox
from poise.kernels.cpu._jit import entry
from poise.kernels.reference import LANES, TILE_BLOCKS

Array = NDArray[Any]


def keep_mask(size: int, seed: int, step: int, p: float, dtype: Any) -> Array:
    """Twin of `reference.keep_mask`."""
    out = np.empty(size, dtype)
    _keep_mask(out, np.uint64(seed), np.uint64(step), p, np.empty(TILE_BLOCKS * LANES, dtype))
    return out


def uniform(size: int, seed: int, step: int, dtype: Any) -> Array:
    """Uniform numbers in [0, 1), multiples of 2^-24."""
    out = np.empty(size, dtype)
    _uniform(out, np.uint64(seed), np.uint64(step), np.empty(size + 3, np.uint32))
    return out


def normal(size: int, seed: int, step: int, dtype: Any) -> Array:
    """Standard normal numbers, computed in float64."""
    out = np.zeros(size, dtype)
    _add_normal(out, np.uint64(seed), np.uint64(step), np.empty(size + 4, np.uint32))
    return out


def words(size: int, seed: int, step: int) -> Array:
    """Random 32-bit words, word 0 of all blocks first."""
    out = np.empty((size + 3) // 4 * 4, np.uint32)
    _words(out, np.uint64(seed), np.uint64(step))
    return out[:size]


def permutation(size: int, seed: int, step: int) -> Array:
    """The order that sorts 63-bit random numbers, int64."""
    out = np.empty(size, np.int64)
    _permutation(out, np.uint64(seed), np.uint64(step), np.empty(2 * size + 3, np.uint32))
    return out


@entry
def _keep_mask(out: Any, key: Any, step: Any, p: float, scratch: Any) -> None:
    _philox.keep_mask(out, out.size, key, step, p, scratch)


@entry
def _uniform(out: Any, key: Any, step: Any, bits: Any) -> None:
    _philox.uniform(out, out.size, key, step, bits)


@entry
def _add_normal(out: Any, key: Any, step: Any, bits: Any) -> None:
    _philox.add_normal(out, out.size, 1.0, key, step, bits)


@entry
def _words(out: Any, key: Any, step: Any) -> None:
    _philox.words(out, key, step, out.size // 4)


@entry
def _permutation(out: Any, key: Any, step: Any, bits: Any) -> None:
    _philox.permutation(out, out.size, key, step, bits)
