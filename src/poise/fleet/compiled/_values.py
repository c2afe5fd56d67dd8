"""Where the values, moments and parameters of an operation lie."""

from __future__ import annotations

from typing import Any

from poise.fleet.compiled._program import BIAS, CAPACITY, GHOST_SIZE, MOMENTS, MOMENTS_SIZE, WEIGHT, WIDTH
from poise.kernels.cpu._jit import inner


@inner
def value(buffer: Any, program: Any, offset: int, rows: int, width: int) -> Any:
    """The value at `offset` as a matrix (rows, width)."""
    start = offset * program.sizes[CAPACITY]
    return buffer[start : start + rows * width].reshape(rows, width)


@inner
def flat_value(buffer: Any, program: Any, offset: int, count: int) -> Any:
    start = offset * program.sizes[CAPACITY]
    return buffer[start : start + count]


@inner
def affine_of(op: Any, weights: Any, scratch: Any) -> Any:
    """Weight and bias of a normalization, or ones and zeros."""
    width = op[WIDTH]
    if op[WEIGHT] >= 0:
        return weights[op[WEIGHT] : op[WEIGHT] + width], weights[op[BIAS] : op[BIAS] + width]
    ones, zeros = scratch[:width], scratch[width : 2 * width]
    ones[:] = 1
    zeros[:] = 0
    return ones, zeros


@inner
def affine_grads_of(op: Any, grad: Any, scratch: Any) -> Any:
    """Where the gradients of weight and bias go, or memory that nothing reads."""
    width = op[WIDTH]
    if op[WEIGHT] >= 0:
        return grad[op[WEIGHT] : op[WEIGHT] + width], grad[op[BIAS] : op[BIAS] + width]
    return scratch[2 * width : 3 * width], scratch[3 * width : 4 * width]


@inner
def moments_of(op: Any, program: Any, buffers: Any) -> Any:
    """Where mean and rstd are kept from forward to backward."""
    size = program.sizes[MOMENTS_SIZE]
    start = op[MOMENTS] * 2 * size
    return buffers.moments[start : start + size], buffers.moments[start + size : start + 2 * size]


@inner
def num_ghosts(op: Any, rows: int) -> int:
    """Into how many ghost batches `BatchNorm` deals the rows."""
    number = max(1, rows // op[GHOST_SIZE]) if op[GHOST_SIZE] > 0 else 1
    # A ghost of one row would have no variance.
    return max(1, min(number, rows // 2))


@inner
def ghost_bounds(rows: int, ghosts: int, index: int) -> Any:
    """First row and end of ghost `index`; the first ones are a row longer where the division leaves a rest."""
    size, rest = rows // ghosts, rows % ghosts
    first = index * size + min(index, rest)
    return first, first + size + (1 if index < rest else 0)


@inner
def copy(source: Any, target: Any) -> None:
    """target ← source, flat or not. Numba's own assignment of matrices is nine times slower."""
    flat, into = source.reshape(source.size), target.reshape(target.size)
    for i in range(into.size):
        into[i] = flat[i]
