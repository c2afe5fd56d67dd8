"""Matrix products of the sizes that small networks have.

BLAS libraries choose their kernels by a list of known CPUs, share one pool of threads between all callers, and are slow
below a hundred rows. Here one core multiplies for one caller, and the same shapes always give the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from poise.kernels.cpu._jit import HAS_AVX512, HAS_BFLOAT16, VECTOR_BYTES, inner
from poise.kernels.cpu._vector import pointer, tile, transpose_block, transpose_edge

# As many sums as registers hold: 32 of AVX-512, or 16.
_ROWS = 8 if HAS_AVX512 else 6
_HALF = _ROWS // 2


def _make_matmul(*, pairs: bool) -> Any:
    tall_wide, tall_narrow = tile(_ROWS, 2, masked=False, pairs=pairs), tile(_ROWS, 1, masked=True, pairs=pairs)
    tall_edge = tile(_ROWS, 2, masked=True, pairs=pairs)
    half_wide, half_narrow = tile(_HALF, 2, masked=False, pairs=pairs), tile(_HALF, 1, masked=True, pairs=pairs)
    flat_wide, flat_narrow = tile(1, 2, masked=False, pairs=pairs), tile(1, 1, masked=True, pairs=pairs)

    def matmul(
        a: Any, a_start: int, a_row: int, a_column: int, b: Any, b_start: int, b_row: int, c: Any, c_start: int,
        c_row: int, rows: int, columns: int, depth: int,
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
        lanes = VECTOR_BYTES // c.itemsize
        # Enough rows for one tile: the last tile then begins early and writes some rows a second time, the same.
        tall = _ROWS if rows >= _ROWS else (_HALF if rows >= _HALF else 1)
        j = 0
        while j < columns:
            left_over = columns - j
            wide = left_over >= 2 * lanes
            edge = tall == _ROWS and lanes < left_over < 2 * lanes
            live = left_over - lanes if edge else min(lanes, left_over)
            right = pointer(b, b_start + j)
            for i in range(0, rows, tall):
                first = min(i, rows - tall)
                left, out = pointer(a, a_start + first * a_row), pointer(c, c_start + first * c_row + j)
                if tall == _ROWS:
                    if wide:
                        tall_wide(left, a_row, a_column, right, b_row, out, c_row, depth, live)
                    elif edge:
                        tall_edge(left, a_row, a_column, right, b_row, out, c_row, depth, live)
                    else:
                        tall_narrow(left, a_row, a_column, right, b_row, out, c_row, depth, live)
                elif tall == _HALF:
                    if wide:
                        half_wide(left, a_row, a_column, right, b_row, out, c_row, depth, live)
                    else:
                        half_narrow(left, a_row, a_column, right, b_row, out, c_row, depth, live)
                elif wide:
                    flat_wide(left, a_row, a_column, right, b_row, out, c_row, depth, live)
                else:
                    flat_narrow(left, a_row, a_column, right, b_row, out, c_row, depth, live)
            j += 2 * lanes if wide or edge else lanes

    return inner(matmul)


matmul = _make_matmul(pairs=False)
# On int32 elements that hold two bfloat16 numbers each; only where the CPU multiplies such pairs.
matmul_of_pairs = _make_matmul(pairs=HAS_BFLOAT16)


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
def transpose(
    source: Any, source_start: int, source_row: int, target: Any, target_start: int, target_row: int, rows: int,
    columns: int,
) -> None:  # fmt: skip
    """target[j, i] = source[i, j] for source (rows, columns); both begin at their start, with rows `*_row` apart."""
    lanes = VECTOR_BYTES // source.itemsize
    for i in range(0, rows, lanes):
        for j in range(0, columns, lanes):
            start, end = source_start + i * source_row + j, target_start + j * target_row + i
            here, there, down, along = pointer(source, start), pointer(target, end), rows - i, columns - j
            if down >= lanes and along >= lanes:
                transpose_block(here, source_row, there, target_row, down, along)
            else:
                transpose_edge(here, source_row, there, target_row, down, along)


@inner
def _half(bits: Any) -> Any:
    """The upper half is the bfloat16 number nearest to the float32 number with these bits; ties go to even."""
    return np.uint32(bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))


@inner
def pair_columns(source: Any, start: int, rows: int, columns: int, target: Any) -> None:
    """target[i, k] = (source[i, 2 k], source[i, 2 k + 1]); an odd last column is paired with 0."""
    pairs, bits = (columns + 1) // 2, source.view(np.uint32)
    for i in range(rows):
        row, out = bits[start + i * columns : start + (i + 1) * columns], target[i * pairs : (i + 1) * pairs]
        for k in range(columns // 2):
            out[k] = (_half(row[2 * k]) >> np.uint32(16)) | (_half(row[2 * k + 1]) & np.uint32(0xFFFF0000))
        if columns % 2:
            out[pairs - 1] = _half(row[columns - 1]) >> np.uint32(16)


@inner
def pair_rows(source: Any, start: int, rows: int, columns: int, target: Any) -> None:
    """target[k, j] = (source[2 k, j], source[2 k + 1, j]); an odd last row is paired with 0."""
    bits = source.view(np.uint32)
    for k in range(rows // 2):
        at, out = start + 2 * k * columns, target[k * columns : (k + 1) * columns]
        upper, lower = bits[at : at + columns], bits[at + columns : at + 2 * columns]
        for j in range(columns):
            out[j] = (_half(upper[j]) >> np.uint32(16)) | (_half(lower[j]) & np.uint32(0xFFFF0000))
    if rows % 2:
        at, out = start + (rows - 1) * columns, target[rows // 2 * columns : (rows // 2 + 1) * columns]
        last = bits[at : at + columns]
        for j in range(columns):
            out[j] = _half(last[j]) >> np.uint32(16)
