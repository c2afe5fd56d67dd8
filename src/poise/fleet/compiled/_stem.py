"""The linear layer that reads the input value, on one core: y = (s ∘ x) Wᵀ + b.

Learned scales s are put to the weight, so that their gradient does not need that of x: with G the gradient of W ∘ s, it
is the sum over rows of W ∘ G. Numbers that are encoded piecewise-linearly are the first columns of W and no columns of
x: `kernels.cpu._pieces` multiplies them without writing their encoding down.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from poise.fleet.compiled._products import forward_product, input_grad_product, weight_grad_product
from poise.fleet.compiled._program import ALPHA, BIAS, FIRST, PIECES, RATE, SOURCE_WIDTH, WEIGHT, WIDTH
from poise.fleet.compiled._values import add_bias
from poise.kernels.cpu._jit import inner
from poise.kernels.cpu._matmul import transpose
from poise.kernels.cpu._norm import add_rows
from poise.kernels.cpu._pieces import add_pieces, pieces_backward, tabulate
from poise.kernels.cpu._view import flat, part


def stem_size(op: Any) -> int:
    """Numbers in `Buffers.stem`: the scales, W ∘ s behind the pieces, and a table of two rows for each of these."""
    width, rest, pieces = op[WIDTH], op[SOURCE_WIDTH], op[PIECES]
    return int(pieces + rest + width * rest + 2 * pieces * width)


@inner
def prepare_stem(op: Any, program: Any, state: Any, buffers: Any) -> None:
    """Leave s, W ∘ s and the table of its first columns in the buffers, for the weights as they are now."""
    width, rest, pieces = op[WIDTH], op[SOURCE_WIDTH], op[PIECES]
    depth, zero = pieces + rest, np.int64(0)  # a literal would be a type of its own
    scale = part(buffers.stem, zero, depth)
    _scales(op, program, state, scale)
    for o in range(width):
        row = part(state.weights, op[WEIGHT] + o * depth + pieces, rest)
        own, scaled = part(scale, pieces, rest), part(buffers.stem, depth + o * rest, rest)
        for j in range(rest):
            scaled[j] = row[j] * own[j]
    if pieces > 0:
        features, bins = program.start.shape
        table = _table(op, buffers)
        # Every other row of the table is a column of W ∘ s.
        transpose(state.weights, op[WEIGHT], depth, table, width, 2 * width, width, pieces)
        for c in range(pieces if op[ALPHA] >= 0 else zero):
            column = part(table, (2 * c + 1) * width, width)
            for o in range(width):
                column[o] *= scale[c]
        tabulate(table, features, bins, width)


@inner
def stem(op: Any, program: Any, state: Any, buffers: Any, x: Any, y: Any) -> None:
    """Write y, with what `prepare_stem` left."""
    rows, rest, width, flat_y = x.shape[0], x.shape[1], y.shape[1], flat(y)
    if rest > 0:
        forward_product(buffers, flat(x), buffers.stem, op[PIECES] + rest, flat_y, rows, width, rest)
    else:
        for i in range(flat_y.size):
            flat_y[i] = 0
    if op[PIECES] > 0:
        features = program.start.shape[0]
        add_pieces(_table(op, buffers), buffers.pieces, buffers.shares, rows, features, width, flat_y)
    add_bias(op, state, y)


@inner
def stem_backward(op: Any, program: Any, state: Any, buffers: Any, x: Any, g: Any, gx: Any) -> None:
    """Write the gradient of W and, from column FIRST on, that of x; add to those of b and s."""
    rows, rest, width, pieces = x.shape[0], x.shape[1], g.shape[1], op[PIECES]
    depth, flat_g, zero = pieces + rest, flat(g), np.int64(0)
    if rest > 0:
        weight_grad_product(buffers, flat_g, flat(x), state.grad, op[WEIGHT] + pieces, depth, rows, width, rest)
    if pieces > 0:
        features, bins = program.start.shape
        turned, spare = _table(op, buffers), part(buffers.rows, zero, width)  # the table is not needed any longer
        pieces_backward(
            flat_g, buffers.pieces, buffers.shares, rows, features, bins, width, buffers.order, spare, turned
        )
        transpose(turned, zero, width, state.grad, op[WEIGHT], depth, pieces, width)
    if op[BIAS] >= 0:
        add_rows(g, zero, rows, part(state.grad, op[BIAS], width))
    if op[FIRST] < rest:
        input_grad_product(buffers, flat_g, buffers.stem, depth, flat(gx), op[FIRST], rows, width, rest)
    if op[ALPHA] >= 0:
        _scales_backward(op, program, state, part(buffers.stem, zero, depth), width)


@inner
def _table(op: Any, buffers: Any) -> Any:
    """Behind s and W ∘ s."""
    width, rest, pieces = op[WIDTH], op[SOURCE_WIDTH], op[PIECES]
    return part(buffers.stem, pieces + rest + width * rest, 2 * pieces * width)


@inner
def _scales(op: Any, program: Any, state: Any, scale: Any) -> None:
    """1 + rate · weight, or ones."""
    one = scale.dtype.type(1)
    if op[ALPHA] < 0:
        for j in range(scale.size):
            scale[j] = one
    else:
        weight, rate = part(state.weights, op[ALPHA], scale.size), scale.dtype.type(program.constants[op[RATE]])
        for j in range(scale.size):
            scale[j] = one + rate * weight[j]


@inner
def _scales_backward(op: Any, program: Any, state: Any, scale: Any, width: int) -> None:
    """From the gradient of W ∘ s, which stands where that of W belongs, to both."""
    depth, rate = scale.size, scale.dtype.type(program.constants[op[RATE]])
    scale_grad = part(state.grad, op[ALPHA], depth)
    for o in range(width):
        w, grad = part(state.weights, op[WEIGHT] + o * depth, depth), part(state.grad, op[WEIGHT] + o * depth, depth)
        for j in range(depth):
            scale_grad[j] += rate * w[j] * grad[j]
            grad[j] *= scale[j]
