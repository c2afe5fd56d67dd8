"""What looking more than once does to a test whose variance is estimated, by simulation."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from poise._random import Key

_NUM_PATHS = 1 << 20


@lru_cache(maxsize=2)
def null_paths(counts: tuple[int, ...], ratio: float) -> NDArray[np.float32]:
    """|T| at each look, of many families of blocks between which there is no difference.

    T_k = mean / (s √(1/J_k + ratio)) over the first J_k differences, which are u + e_j with u ~ N(0, ratio) and
    e_j ~ N(0, 1). Groups of new differences are drawn by their means and sums of squares.

    Args:
        counts: J_k, ascending; the first ≥ 2.
        ratio: Test rows over rows to learn from, ≥ 0.

    Returns:
        (looks, 2^20), the same in every process.
    """
    key = Key(0).stream("null paths")
    shared = np.sqrt(ratio) * _normal(key.stream("shared"))
    mean, squares, seen = np.zeros(_NUM_PATHS), np.zeros(_NUM_PATHS), 0
    found = np.empty((len(counts), _NUM_PATHS), dtype=np.float32)
    for number, count in enumerate(counts):
        new = count - seen
        step = _normal(key.stream("mean", number)) / np.sqrt(new) - mean
        squares += _chi_squared(key.stream("squares", number), new - 1) + seen * new / count * step**2
        mean += new / count * step
        seen = count
        found[number] = np.abs(shared + mean) / np.sqrt((1 / count + ratio) * squares / (count - 1))
    return found


def _normal(key: Key) -> NDArray[np.float64]:
    drawn: NDArray[np.float64] = key.normal(_NUM_PATHS).numpy().astype(np.float64)
    return drawn


def _chi_squared(key: Key, freedom: int) -> NDArray[np.float64]:
    """Sums of `freedom` squared standard normal numbers: two of them are -2 log of a uniform one."""
    total = _normal(key.stream("odd")) ** 2 if freedom % 2 else np.zeros(_NUM_PATHS)
    for number in range(freedom // 2):
        total -= 2 * np.log1p(-key.at(number).uniform(_NUM_PATHS).numpy().astype(np.float64))
    return total


def share_that_crosses(paths: NDArray[np.float32], bounds: NDArray[np.float64]) -> float:
    """The share of paths that exceed the bound of any look."""
    crossed = np.zeros(paths.shape[1], dtype=bool)
    for values, bound in zip(paths, bounds, strict=True):
        crossed |= values > np.float32(bound)
    return float(crossed.mean())
