"""A batch: its rows gathered, changed by batch methods, and encoded for the network."""

from __future__ import annotations

from typing import Any

from poise.fleet.compiled._program import (
    FEATURE_MASK,
    MIXUP,
    NUM_CATEGORICAL,
    NUM_CONTINUOUS,
    NUM_NUMERIC,
    NUM_PIECES,
)
from poise.fleet.compiled._waves import add_waves, waves_backward
from poise.kernels.cpu._jit import inner
from poise.kernels.cpu._philox import keep_mask, permutation, uniform
from poise.kernels.cpu._pieces import find_pieces
from poise.kernels.cpu._vector import copy_part, pointer, prefetch, select


@inner
def gather(data: Any, buffers: Any, order: Any, first: int, last: int) -> None:
    """Rows order[first:last] of the data into the batch buffers."""
    numeric, categorical, targets = buffers.numeric, buffers.categorical, buffers.targets
    columns, kinds, outputs = data.numeric.shape[1], data.categorical.shape[1], data.targets.shape[1]
    for i in range(last - first):
        row = order[first + i]
        copy_part(pointer(data.numeric, row * columns), pointer(numeric, i * columns), columns)
        copy_part(pointer(data.categorical, row * kinds), pointer(categorical, i * kinds), kinds)
        copy_part(pointer(data.targets, row * outputs), pointer(targets, i * outputs), outputs)
        buffers.weight[i] = data.weight[row]


@inner
def fetch(data: Any, order: Any, first: int, last: int) -> None:
    """Have rows order[first:last], which lie anywhere, brought near while something else is computed."""
    columns, line = data.numeric.shape[1], 64 // data.numeric.itemsize
    for i in range(first, last):
        for j in range(0, columns, line):
            prefetch(pointer(data.numeric, order[i] * columns + j))


@inner
def change(program: Any, buffers: Any, strengths: Any, step: int, rows: int, num_outputs: int) -> None:
    """Apply the batch methods of the recipe, in their order."""
    for index in range(program.batch.shape[0]):
        code, strength = program.batch[index, 0], strengths[program.batch[index, 1]]
        first, second = program.streams[program.batch[index, 2]], program.streams[program.batch[index, 3]]
        if code == MIXUP and strength < 1:
            _mix(program, buffers, strength, first, second, step, rows, num_outputs)
        elif code == FEATURE_MASK and strength > 0:
            _hide(program, buffers, strength, first, second, step, rows)


@inner
def _mix(
    program: Any, buffers: Any, lam: float, partner_key: Any, cell_key: Any, step: int, rows: int, num_outputs: int
) -> None:
    columns, kinds = program.sizes[NUM_NUMERIC], program.sizes[NUM_CATEGORICAL]
    partner = buffers.order[:rows]
    permutation(partner, rows, partner_key, step, buffers.bits)
    _lerp_rows(buffers.numeric, buffers.other_numeric, partner, rows, columns, lam)
    _lerp_rows(buffers.targets, buffers.other_targets, partner, rows, num_outputs, lam)
    _lerp_rows(buffers.weight, buffers.other_weight, partner, rows, 1, lam)
    if kinds > 0:
        drawn = buffers.masks  # no layer has drawn its own mask yet
        uniform(drawn, rows * kinds, cell_key, step, buffers.bits)
        bound, own, other = drawn.dtype.type(lam), buffers.categorical, buffers.other_categorical
        other[: rows * kinds] = own[: rows * kinds]
        for i in range(rows):
            for j in range(kinds):
                if drawn[i * kinds + j] >= bound:
                    own[i * kinds + j] = other[partner[i] * kinds + j]


@inner
def _lerp_rows(own: Any, other: Any, partner: Any, rows: int, columns: int, lam: float) -> None:
    """own ← other[partner] + lam · (own - other[partner]), as torch.lerp rounds it."""
    number = own.dtype.type
    weight, rest = number(lam), number(1) - number(lam)
    near = number(lam) < number(0.5)
    other[: rows * columns] = own[: rows * columns]
    for i in range(rows):
        start = partner[i] * columns
        for j in range(columns):
            a, b = other[start + j], own[i * columns + j]
            own[i * columns + j] = a + weight * (b - a) if near else b - (b - a) * rest


@inner
def _hide(program: Any, buffers: Any, p: float, numeric_key: Any, categorical_key: Any, step: int, rows: int) -> None:
    numbers, kinds = rows * program.sizes[NUM_NUMERIC], rows * program.sizes[NUM_CATEGORICAL]
    mask = buffers.masks  # no layer has drawn its own mask yet
    keep_mask(mask, numbers, numeric_key, step, p, buffers.scratch)
    for i in range(numbers):
        buffers.numeric[i] = select(mask[i] > 0, buffers.numeric[i], buffers.numeric.dtype.type(0))
    keep_mask(mask, kinds, categorical_key, step, p, buffers.scratch)
    for i in range(kinds):
        buffers.categorical[i] = buffers.categorical[i] if mask[i] > 0 else 0


@inner
def encode(program: Any, state: Any, buffers: Any, numeric: Any, categorical: Any, x: Any) -> None:
    """Fill the input value x: encoded numbers, the other numeric columns, waves, the vectors of the categories.

    Encoded numbers that only the stem reads are no columns of x; where they lie is noted in the buffers.
    """
    rows, total = x.shape
    continuous, columns, bins = program.sizes[NUM_CONTINUOUS], program.sizes[NUM_NUMERIC], program.start.shape[1]
    at = 0
    if program.sizes[NUM_PIECES] > 0:
        find_pieces(numeric, columns, rows, program.start, program.slope, buffers.pieces, buffers.shares)
    elif bins > 0:
        _spell_out(program, numeric, x)
        at = continuous * bins
    skipped = continuous if bins > 0 else 0
    for i in range(rows):
        copy_part(pointer(numeric, i * columns + skipped), pointer(x, i * total + at), columns - skipped)
    add_waves(program, state.weights, numeric, x, buffers.scratch)
    for c in range(program.tables.shape[0]):
        start, width, column = program.tables[c, 0], program.tables[c, 2], program.tables[c, 3]
        for i in range(rows):
            row = start + categorical[i * program.tables.shape[0] + c] * width
            copy_part(pointer(state.weights, row), pointer(x, i * total + column), width)


@inner
def _spell_out(program: Any, numeric: Any, x: Any) -> None:
    """The first columns of x are the encoded numbers."""
    features, bins = program.start.shape
    for i in range(x.shape[0]):
        for d in range(features):
            z = numeric[i * program.sizes[NUM_NUMERIC] + d]
            for t in range(bins):
                v = (z - program.start[d, t]) * program.slope[d, t]
                v = select(v < program.low[d, t], program.low[d, t], v)
                x[i, d * bins + t] = select(v > program.high[d, t], program.high[d, t], v)


@inner
def encode_backward(program: Any, state: Any, numeric: Any, categorical: Any, gx: Any, scratch: Any) -> None:
    """Add the gradient of the input value to those of the waves and of the categories' vectors."""
    waves_backward(program, state, numeric, gx, scratch)
    for c in range(program.tables.shape[0]):
        start, width, column = program.tables[c, 0], program.tables[c, 2], program.tables[c, 3]
        for i in range(gx.shape[0]):
            row = start + categorical[i * program.tables.shape[0] + c] * width
            for j in range(width):
                state.grad[row + j] += gx[i, column + j]
