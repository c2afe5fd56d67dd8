"""Views of arrays without bookkeeping.

A slice or a reshape of Numba's checks its bounds and strides and counts references, which takes longer than the work on
64 columns. These views own nothing: the array must outlive them.
"""

from __future__ import annotations

from typing import Any

from numba import carray  # type: ignore[attr-defined]

from poise.kernels.cpu._jit import inner
from poise.kernels.cpu._vector import pointer


@inner
def part(array: Any, start: int, count: int) -> Any:
    """`count` elements of a contiguous array from the flat position `start` on."""
    return carray(pointer(array, start), (count,))


@inner
def matrix(array: Any, start: int, rows: int, columns: int) -> Any:
    """A matrix (rows, columns) that lies in a contiguous array from the flat position `start` on."""
    return carray(pointer(array, start), (rows, columns))


@inner
def flat(array: Any) -> Any:
    """All elements of a contiguous array."""
    return carray(pointer(array, 0), (array.size,))
