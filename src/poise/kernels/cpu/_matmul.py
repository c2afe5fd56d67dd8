"""Matrix products of the sizes that small networks have.

BLAS libraries choose their kernels by a list of known CPUs, share one pool of threads between all callers, and are slow
below a hundred rows. Here one core multiplies for one caller, and the same shapes always give the same bits.
"""

from __future__ import annotations

from typing import Any

from poise.kernels.cpu._jit import HAS_AVX512, VECTOR_BYTES, inner
from poise.kernels.cpu._vector import pointer, tile, transpose_block

# As many sums as registers hold: 32 of AVX-512, or 16.
_ROWS = 8 if HAS_AVX512 else 4
_TALL_WIDE = tile(_ROWS, 2, masked=False)
_TALL_NARROW = tile(_ROWS, 1, masked=True)
_FLAT_WIDE = tile(1, 2, masked=False)
_FLAT_NARROW = tile(1, 1, masked=True)


@inner
def matmul(
    a: Any, a_start: int, a_row: int, a_column: int, b: Any, b_start: int, b_row: int, c: Any, c_start: int, c_row: int,
    rows: int, columns: int, depth: int,
) -> None:  # fmt: skip
    """C = A B on parts of flat arrays; A may be transposed by its distances, rows of B and C are contiguous.

    Args:
        a: Holds A (rows, depth) from `a_start`; its rows are `a_row` and its columns `a_column` elements apart.
        a_start: See `a`.
        a_row: See `a`.
        a_column: See `a`.
        b: Holds B (depth, columns) from `b_start`, rows `b_row` apart.
        b_start: See `b`.
        b_row: See `b`.
        c: Receives C (rows, columns) from `c_start`, rows `c_row` apart.
        c_start: See `c`.
        c_row: See `c`.
        rows: Of C.
        columns: Of C.
        depth: Length of the sums, ≥ 1.
    """
    lanes = VECTOR_BYTES // a.itemsize
    j = 0
    while j < columns:
        wide = columns - j >= 2 * lanes
        live = min(lanes, columns - j)
        right = pointer(b, b_start + j)
        i = 0
        while i + _ROWS <= rows:
            left, out = pointer(a, a_start + i * a_row), pointer(c, c_start + i * c_row + j)
            if wide:
                _TALL_WIDE(left, a_row, a_column, right, b_row, out, c_row, depth, live)
            else:
                _TALL_NARROW(left, a_row, a_column, right, b_row, out, c_row, depth, live)
            i += _ROWS
        while i < rows:
            left, out = pointer(a, a_start + i * a_row), pointer(c, c_start + i * c_row + j)
            if wide:
                _FLAT_WIDE(left, a_row, a_column, right, b_row, out, c_row, depth, live)
            else:
                _FLAT_NARROW(left, a_row, a_column, right, b_row, out, c_row, depth, live)
            i += 1
        j += 2 * lanes if wide else lanes


@inner
def matmul_transposed(a: Any, b: Any, c: Any, rows: int, columns: int, depth: int) -> None:
    """C = A Bᵀ for contiguous A (rows, depth), B (columns, depth) and C (rows, columns), by sums along the depth."""
    for i in range(rows):
        left = a[i * depth : (i + 1) * depth]
        for j in range(columns):
            right, total = b[j * depth : (j + 1) * depth], a.dtype.type(0)
            for k in range(depth):
                total += left[k] * right[k]
            c[i * columns + j] = total


@inner
def transpose(source: Any, source_start: int, target: Any, rows: int, columns: int) -> None:
    """target[j, i] = source[i, j] for source (rows, columns) from `source_start`."""
    lanes = VECTOR_BYTES // source.itemsize
    for i in range(0, rows, lanes):
        for j in range(0, columns, lanes):
            if i + lanes <= rows and j + lanes <= columns:
                block = pointer(source, source_start + i * columns + j)
                transpose_block(block, columns, pointer(target, j * rows + i), rows)
            else:
                for row in range(i, min(rows, i + lanes)):
                    for column in range(j, min(columns, j + lanes)):
                        target[column * rows + row] = source[source_start + row * columns + column]
