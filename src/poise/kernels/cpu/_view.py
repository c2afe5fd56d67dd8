"""Views of arrays without bookkeeping.

A slice or a reshape of Numba's checks its bounds and strides and counts references, which takes longer than the work on
64 columns. These views own nothing: the array must outlive them.
"""

from __future__ import annotations

from typing import Any

from numba import carray  # type: ignore[attr-defined]
from numba.core import cgutils as _cgutils

from poise.kernels.cpu._jit import inner, instruction
from poise.kernels.cpu._vector import pointer

cgutils: Any = _cgutils  # has no annotations


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


@instruction
def borrowed(_typing: Any, owners: Any) -> Any:
    """The same named tuple of arrays, whose arrays own nothing: who passes them on counts no references."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        made = []
        for kind, one in zip(owners.types, cgutils.unpack_tuple(builder, arguments[0]), strict=True):
            array = cgutils.create_struct_proxy(kind)(context, builder, one)
            array.meminfo = cgutils.get_null_value(array.meminfo.type)
            array.parent = cgutils.get_null_value(array.parent.type)
            made.append(array._getvalue())
        return context.make_tuple(builder, owners, made)

    return owners(owners), generate
