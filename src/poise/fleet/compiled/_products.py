"""The three matrix products of a linear layer, in the precision that the buffers are made for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from poise.kernels.cpu._jit import inner
from poise.kernels.cpu._matmul import matmul, matmul_of_pairs, pair_columns, pair_rows, transpose


def _forward_exact(buffers: Any, x: Any, weights: Any, start: int, y: Any, rows: int, width: int, depth: int) -> None:
    zero, one = np.int64(0), np.int64(1)  # a literal would be a type of its own, and compiled once more
    transpose(weights, start, depth, buffers.transposed, zero, width, width, depth)
    matmul(x, zero, depth, one, buffers.transposed, zero, width, y, zero, width, rows, width, depth)


def _forward_pairs(buffers: Any, x: Any, weights: Any, start: int, y: Any, rows: int, width: int, depth: int) -> None:
    zero, one, pairs = np.int64(0), np.int64(1), (depth + 1) // 2
    left, right, turned = buffers.left, buffers.right, buffers.transposed
    pair_columns(x, zero, rows, depth, left)
    pair_columns(weights, start, width, depth, right)
    transpose(right.view(np.float32), zero, pairs, turned, zero, width, width, pairs)
    b = turned.view(np.int32)
    matmul_of_pairs(left.view(np.int32), zero, pairs, one, b, zero, width, y, zero, width, rows, width, pairs)


def _weight_grad_exact(
    buffers: Any, g: Any, x: Any, grad: Any, start: int, row: int, rows: int, width: int, depth: int
) -> None:
    zero, one = np.int64(0), np.int64(1)
    matmul(g, zero, one, width, x, zero, depth, grad, start, row, width, depth, rows)


def _weight_grad_pairs(
    buffers: Any, g: Any, x: Any, grad: Any, start: int, row: int, rows: int, width: int, depth: int
) -> None:
    zero, one = np.int64(0), np.int64(1)
    pair_rows(g, zero, rows, width, buffers.left)
    pair_rows(x, zero, rows, depth, buffers.right)
    a, b = buffers.left.view(np.int32), buffers.right.view(np.int32)
    matmul_of_pairs(a, zero, one, width, b, zero, depth, grad, start, row, width, depth, (rows + 1) // 2)


def _input_grad_exact(
    buffers: Any, g: Any, weights: Any, start: int, out: Any, first: int, rows: int, width: int, depth: int
) -> None:
    zero, one, wanted = np.int64(0), np.int64(1), depth - first
    matmul(g, zero, width, one, weights, start + first, depth, out, first, depth, rows, wanted, width)


def _input_grad_pairs(
    buffers: Any, g: Any, weights: Any, start: int, out: Any, first: int, rows: int, width: int, depth: int
) -> None:
    zero, one, pairs = np.int64(0), np.int64(1), (width + 1) // 2
    pair_columns(g, zero, rows, width, buffers.left)
    pair_rows(weights, start, width, depth, buffers.right)
    a, b = buffers.left.view(np.int32), buffers.right.view(np.int32)
    matmul_of_pairs(a, zero, pairs, one, b, first, depth, out, first, depth, rows, depth - first, pairs)


def _by_precision(exact: Callable[..., None], pairs: Callable[..., None]) -> Any:
    """A function for machine code that is `pairs` where the buffers have room for pairs of bfloat16 numbers."""

    def product(buffers: Any, *matrices_and_sizes: Any) -> None:
        exact(buffers, *matrices_and_sizes)

    @overload(product, strict=False)
    def choose(buffers: Any, *_: Any) -> Any:
        has_pairs = buffers.types[buffers.fields.index("left")].dtype == types.uint32
        chosen = inner(pairs if has_pairs else exact)

        def call(buffers: Any, *rest: Any) -> Any:
            return chosen(buffers, *rest)

        return call

    return product


# Y = X Wᵀ for flat X (rows, depth), and W (width, depth) at `start` of the weights.
forward_product = _by_precision(_forward_exact, _forward_pairs)
# The gradient of W, Gᵀ X, written at `start` with rows `row` apart.
weight_grad_product = _by_precision(_weight_grad_exact, _weight_grad_pairs)
# The gradient of X, G W, from column `first` on.
input_grad_product = _by_precision(_input_grad_exact, _input_grad_pairs)
