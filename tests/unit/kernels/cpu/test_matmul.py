"""Matrix products of odd shapes against numpy in float64, and not a cell beyond the result."""

import numpy as np
import pytest

from poise.kernels.cpu import _matmul

from ._called import called

matmul, matmul_transposed, transpose = (
    called(one) for one in (_matmul.matmul, _matmul.matmul_transposed, _matmul.transpose)
)

DTYPES = (np.float32, np.float64)
GUARD = -777.0
EDGES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 70)


def shapes(num=150):
    """Every edge in every place, and others drawn from 1 to 70."""
    rng = np.random.default_rng(0)
    found = [tuple(int(one) for one in rng.integers(1, 71, 3)) for _ in range(num)]
    found += [tuple(int(one) for one in rng.choice(EDGES, 3)) for _ in range(num)]
    return found + [(n, 1, 1) for n in EDGES] + [(1, n, 1) for n in EDGES] + [(1, 1, n) for n in EDGES]


def is_close(found, a, b):
    """Within the error that sums of `depth` roundings can have."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    bound = a.shape[1] * np.finfo(found.dtype).eps * (np.abs(a) @ np.abs(b))
    return (np.abs(found - a @ b) <= bound).all()


def place(matrix, start, row, rng):
    """The matrix in a flat array from `start`, its rows `row` apart, and values that are no numbers elsewhere."""
    flat = np.full(start + matrix.shape[0] * row + 70, np.nan, matrix.dtype)
    for i, values in enumerate(matrix):
        flat[start + i * row : start + i * row + matrix.shape[1]] = values
    return flat


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [False, True])
def test_products_of_all_shapes(dtype, transposed):
    rng = np.random.default_rng(1)
    for rows, columns, depth in shapes():
        a, b = rng.normal(size=(rows, depth)).astype(dtype), rng.normal(size=(depth, columns)).astype(dtype)
        a_start, b_start, c_start = (int(one) for one in rng.integers(0, 9, 3))
        a_gap, b_gap, c_gap = (int(one) for one in rng.integers(0, 4, 3))
        stored = a.T if transposed else a
        a_flat = place(stored, a_start, stored.shape[1] + a_gap, rng)
        a_row, a_column = (1, rows + a_gap) if transposed else (depth + a_gap, 1)
        b_flat = place(b, b_start, columns + b_gap, rng)
        c = np.full(c_start + rows * (columns + c_gap) + 70, GUARD, dtype)
        matmul(
            a_flat, a_start, a_row, a_column, b_flat, b_start, columns + b_gap, c, c_start, columns + c_gap,
            rows, columns, depth,
        )  # fmt: skip
        inside = c[c_start : c_start + rows * (columns + c_gap)].reshape(rows, -1)
        assert is_close(inside[:, :columns], a, b), (rows, columns, depth)
        assert (inside[:, columns:] == GUARD).all(), (rows, columns, depth)
        assert (c[:c_start] == GUARD).all()
        assert (c[c_start + inside.size :] == GUARD).all(), (rows, columns, depth)


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_with_the_second_matrix_transposed(dtype):
    rng = np.random.default_rng(2)
    for rows, columns, depth in shapes(60):
        a, b = rng.normal(size=(rows, depth)).astype(dtype), rng.normal(size=(columns, depth)).astype(dtype)
        c = np.full(rows * columns + 20, GUARD, dtype)
        matmul_transposed(a.ravel(), b.ravel(), c, rows, columns, depth)
        assert is_close(c[: rows * columns].reshape(rows, columns), a, b.T), (rows, columns, depth)
        assert (c[rows * columns :] == GUARD).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_transposes_of_all_shapes(dtype):
    rng = np.random.default_rng(3)
    for rows, columns, start in shapes():
        matrix, wide, high = rng.normal(size=(rows, columns)).astype(dtype), columns + start % 3, rows + start % 2
        source, target = place(matrix, start, wide, rng), np.full(columns * high + 20, GUARD, dtype)
        transpose(source, start, wide, target, 5, high, rows, columns)
        found = target[5 : 5 + columns * high].reshape(columns, high)
        np.testing.assert_array_equal(found[:, :rows], matrix.T)
        assert (found[:, rows:] == GUARD).all()
        assert (target[:5] == GUARD).all()
        assert (target[5 + columns * high :] == GUARD).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_where_a_matrix_lies(dtype):
    """A vector unit that aligns itself would sum in another order at another address."""
    rng = np.random.default_rng(4)
    rows, columns, depth = 13, 19, 37
    a, b = rng.normal(size=(rows, depth)).astype(dtype), rng.normal(size=(depth, columns)).astype(dtype)
    right = np.ascontiguousarray(b.T)
    found = []
    for start in range(17):
        a_flat, b_flat = place(a, start, depth, rng), place(b, 17 - start, columns, rng)
        c = np.zeros(rows * columns + start, dtype)
        matmul(a_flat, start, depth, 1, b_flat, 17 - start, columns, c, start, columns, rows, columns, depth)
        flat = np.zeros(rows * columns + start, dtype)
        shifted = place(right, 17 - start, depth, rng)[17 - start :]
        matmul_transposed(a_flat[start:], shifted, flat[start:], rows, columns, depth)
        found.append((c[start:], flat[start:]))
    assert all(np.array_equal(one, other) for pair in found for one, other in zip(found[0], pair, strict=True))


def test_what_is_no_number_reaches_its_row_alone():
    a, b, c = np.ones((9, 5), np.float32), np.ones((5, 33), np.float32), np.zeros(9 * 33, np.float32)
    a[4, 2] = np.nan
    matmul(a.ravel(), 0, 5, 1, b.ravel(), 0, 33, c, 0, 33, 9, 33, 5)
    bad = np.isnan(c.reshape(9, 33))
    assert bad[4].all()
    assert bad.sum() == 33
