"""Where the values, moments and parameters of an operation lie."""

from __future__ import annotations

from typing import Any

from poise.fleet.compiled._program import (
    ACTIVATION,
    ALPHA,
    BATCH_NORM,
    BIAS,
    CAPACITY,
    DROP,
    DROPOUT,
    GHOST_SIZE,
    MOMENTS,
    MOMENTS_SIZE,
    NO_DROP,
    NORM,
    NUM_COLUMNS,
    STRENGTH,
    WEIGHT,
    WIDTH,
)
from poise.kernels.cpu._activation import RELU
from poise.kernels.cpu._jit import inner
from poise.kernels.cpu._view import flat, matrix, part

# What `fusion_of` finds.
NORM_ALONE, NORM_RELU, NORM_RELU_DROPOUT = range(3)


@inner
def operation(program: Any, index: int) -> Any:
    """Row `index` of the program."""
    return part(program.ops, index * NUM_COLUMNS, NUM_COLUMNS)


@inner
def value(buffer: Any, program: Any, offset: int, rows: int, width: int) -> Any:
    """The value at `offset` as a matrix (rows, width)."""
    return matrix(buffer, offset * program.sizes[CAPACITY], rows, width)


@inner
def flat_value(buffer: Any, program: Any, offset: int, count: int) -> Any:
    return part(buffer, offset * program.sizes[CAPACITY], count)


@inner
def affine_of(op: Any, weights: Any, scratch: Any) -> Any:
    """Weight and bias of a normalization, or ones and zeros."""
    width = op[WIDTH]
    if op[WEIGHT] >= 0:
        return part(weights, op[WEIGHT], width), part(weights, op[BIAS], width)
    ones, zeros = part(scratch, 0, width), part(scratch, width, width)
    for j in range(width):
        ones[j], zeros[j] = 1, 0
    return ones, zeros


@inner
def affine_grads_of(op: Any, grad: Any, scratch: Any) -> Any:
    """Where the gradients of weight and bias go, or memory that nothing reads."""
    width = op[WIDTH]
    if op[WEIGHT] >= 0:
        return part(grad, op[WEIGHT], width), part(grad, op[BIAS], width)
    return part(scratch, 2 * width, width), part(scratch, 3 * width, width)


@inner
def moments_of(op: Any, program: Any, buffers: Any) -> Any:
    """Where mean and rstd are kept from forward to backward."""
    size = program.sizes[MOMENTS_SIZE]
    start = op[MOMENTS] * 2 * size
    return part(buffers.moments, start, size), part(buffers.moments, start + size, size)


@inner
def drops(op: Any, strengths: Any) -> Any:
    """Whether a chain drops anything in training."""
    return op[DROP] != NO_DROP and strengths[op[STRENGTH]] > 0


@inner
def fusion_of(op: Any, dropping: bool) -> int:
    """How much of a chain is done in one pass over its columns."""
    if op[NORM] != BATCH_NORM or op[ACTIVATION] != RELU or op[ALPHA] >= 0:
        return NORM_ALONE
    return NORM_RELU_DROPOUT if dropping and op[DROP] == DROPOUT else NORM_RELU


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
def add_bias(op: Any, state: Any, y: Any) -> None:
    """Add the bias of a linear operation, if it has one, to each row."""
    if op[BIAS] >= 0:
        bias = part(state.weights, op[BIAS], y.shape[1])
        for r in range(y.shape[0]):
            for j in range(y.shape[1]):
                y[r, j] += bias[j]


@inner
def copy(source: Any, target: Any) -> None:
    """target ← source, flat or not. Numba's own assignment of matrices is nine times slower."""
    values, into = flat(source), flat(target)
    for i in range(into.size):
        into[i] = values[i]
