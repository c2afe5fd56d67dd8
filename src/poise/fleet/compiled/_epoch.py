"""What Python calls: an epoch of training, and the scores of a part of the data."""

from __future__ import annotations

from typing import Any

import numpy as np

from poise.fleet.compiled._backward import backward
from poise.fleet.compiled._batch import change, encode, encode_backward, fetch, gather
from poise.fleet.compiled._forward import chain, forward, linear
from poise.fleet.compiled._loss import add_scores, loss_gradient
from poise.fleet.compiled._members import average_members
from poise.fleet.compiled._program import (
    ACCUMULATE,
    BATCH_NORM,
    CAPACITY,
    CHAIN,
    CODE,
    IN_GRAD,
    IN_WIDTH,
    LINEAR,
    NORM,
    NUM_MEMBERS,
    NUM_OUTPUTS,
    OUT_OFFSET,
    RUNNING,
    SMOOTHING,
    SOURCE,
    SOURCE_COPIES,
    SOURCE_WIDTH,
    STEM,
    TARGET,
    TASK,
    WIDTH,
)
from poise.fleet.compiled._stem import prepare_stem, stem
from poise.fleet.compiled._update import average, clear, update
from poise.fleet.compiled._values import copy, operation, value
from poise.kernels.cpu._columns import column_moments
from poise.kernels.cpu._jit import entry, inner
from poise.kernels.cpu._view import borrowed, matrix, part


@entry
def train_epoch(
    program: Any, data: Any, state: Any, buffers: Any, order: Any, bounds: Any, strengths: Any, rates: Any, step: int
) -> None:
    """Train one epoch in place.

    Args:
        program: The network and its recipe.
        data: The training rows.
        state: The flat vectors.
        buffers: Memory.
        order: (N,) int64, the order of the rows.
        bounds: (steps + 1,) int64, where batches begin.
        strengths: (steps, number of strengths) float64.
        rates: (steps, number of averages) float64.
        step: Optimizer steps done before.
    """
    program, data, state, buffers = borrowed(program), borrowed(data), borrowed(state), borrowed(buffers)
    outputs, task, members = program.sizes[NUM_OUTPUTS], program.sizes[TASK], program.sizes[NUM_MEMBERS]
    num_ops, zero, training = program.ops.shape[0], np.int64(0), np.int64(1)  # a literal would be a type of its own
    for index in range(bounds.size - 1):
        rows = bounds[index + 1] - bounds[index]
        now = strengths[index]
        gather(data, buffers, order, bounds[index], bounds[index + 1])
        fetch(data, order, bounds[index + 1], bounds[min(index + 2, bounds.size - 1)])
        change(program, buffers, now, step + index, rows, outputs)
        x = value(buffers.values, program, zero, rows, program.sizes[IN_WIDTH])
        encode(program, state, buffers, buffers.numeric, buffers.categorical, x)
        forward(program, state, buffers, now, step + index, rows, zero, num_ops, training)
        clear(program, state.grad)
        out = value(buffers.values, program, program.sizes[OUT_OFFSET], rows * members, outputs)
        out_grad = value(buffers.grads, program, program.sizes[OUT_OFFSET], rows * members, outputs)
        loss_gradient(task, out, buffers.targets, buffers.weight, now[SMOOTHING], members, out_grad)
        backward(program, state, buffers, now, rows)
        if program.tables.shape[0] + program.waves.shape[0] > 0:
            gx = value(buffers.grads, program, program.sizes[IN_GRAD], rows, program.sizes[IN_WIDTH])
            encode_backward(program, state, buffers.numeric, buffers.categorical, gx, buffers.scratch)
        update(program, state, now, step + index, buffers.scratch)
        for one in range(rates.shape[1]):
            if rates[index, one] > 0:
                average(state, rates[index, one])


@entry
def score(program: Any, data: Any, state: Any, buffers: Any, strengths: Any, measure: bool, sums: Any) -> None:
    """Add up losses and hits of all rows in eval mode; with `measure`, set the batch statistics to those of all rows.

    A batch normalization needs the moments of all rows before the first row can pass. So the rows go through the
    network up to there in chunks, what they are there is kept in `buffers.store`, and they go on from it.

    Args:
        program: The network and its recipe.
        data: The rows.
        state: The flat vectors; `statistics` may change.
        buffers: Memory; `store` holds a row of the widest normalized value for each row of the data.
        strengths: (number of strengths,) float64, not looked at in eval mode.
        measure: Whether to measure statistics.
        sums: (2,) float64, see `add_scores`.
    """
    program, data, state, buffers = borrowed(program), borrowed(data), borrowed(state), borrowed(buffers)
    members, num_rows, num_ops = program.sizes[NUM_MEMBERS], data.numeric.shape[0], program.ops.shape[0]
    most = program.sizes[CAPACITY] // members  # rows of a pass
    outputs, training, step = program.sizes[NUM_OUTPUTS], np.int64(0), np.int64(0)
    first, stored = np.int64(0), np.int64(-1)
    for index in range(num_ops):
        if program.ops[index][CODE] == STEM:
            prepare_stem(operation(program, index), program, state, buffers)
    while first < num_ops:
        last = _next_barrier(program, first + 1 if stored >= 0 else first) if measure else num_ops
        width = program.ops[last][WIDTH] if last < num_ops else 1
        copies = program.ops[last][SOURCE_COPIES] if last < num_ops else 1
        mean, squares = np.zeros(width, np.float64), np.zeros(width, np.float64)
        for start in range(0, num_rows, most):
            rows = min(most, num_rows - start)
            if stored >= 0:
                from_ = _resume(program, state, buffers, strengths, first, start, rows)
            else:
                _encode_rows(program, data, state, buffers, start, rows)
                from_ = first
            if last < num_ops:
                forward(program, state, buffers, strengths, step, rows, from_, last - 1, training)
                x = _store(program, state, buffers, strengths, last, start, rows)
                _merge_moments(x, start * copies, mean, squares, buffers.rows)
            else:
                forward(program, state, buffers, strengths, step, rows, from_, last, training)
                out = value(buffers.values, program, program.sizes[OUT_OFFSET], rows * members, outputs)
                if members > 1:
                    out = average_members(program.sizes[TASK], out, members)
                add_scores(program.sizes[TASK], out, data.targets, data.weight, start, sums)
        if last < num_ops:
            running = program.ops[last][RUNNING]
            for j in range(width):
                state.statistics[running + j] = mean[j]
                state.statistics[running + width + j] = squares[j] / (num_rows * copies)
        first, stored = last, last


@inner
def _next_barrier(program: Any, first: int) -> Any:
    """The next operation that normalizes over the batch, or the end."""
    for index in range(first, program.ops.shape[0]):
        if program.ops[index][CODE] == CHAIN and program.ops[index][NORM] == BATCH_NORM:
            return index
    return program.ops.shape[0]


@inner
def _store(program: Any, state: Any, buffers: Any, strengths: Any, barrier: int, start: int, rows: int) -> Any:
    """Run the operation before the barrier and keep its value in the store."""
    zero, op = np.int64(0), operation(program, barrier - 1)
    width, copies = program.ops[barrier][WIDTH], program.ops[barrier][SOURCE_COPIES]
    kept = matrix(buffers.store, start * copies * width, rows * copies, width)
    x = value(buffers.values, program, op[SOURCE], rows * op[SOURCE_COPIES], op[SOURCE_WIDTH])
    if op[CODE] == LINEAR:
        linear(op, state, buffers, x, kept)
    elif op[CODE] == STEM:
        stem(op, program, state, buffers, x, kept)
    else:
        forward(program, state, buffers, strengths, zero, rows, barrier - 1, barrier, zero)
        copy(value(buffers.values, program, op[TARGET], rows * copies, width), kept)
    return kept


@inner
def _resume(program: Any, state: Any, buffers: Any, strengths: Any, barrier: int, start: int, rows: int) -> int:
    """Go on from the store; returns the next operation."""
    zero, op = np.int64(0), operation(program, barrier)
    width, copies = op[WIDTH], op[SOURCE_COPIES]
    kept = matrix(buffers.store, start * copies * width, rows * copies, width)
    if op[ACCUMULATE] == 1:  # read by a later operation too
        copy(kept, value(buffers.values, program, op[SOURCE], rows * copies, width))
        return barrier
    y = value(buffers.values, program, op[TARGET], rows * copies, width)
    chain(op, program, state, buffers, kept, y, strengths, zero, zero)
    return barrier + 1


@inner
def _encode_rows(program: Any, data: Any, state: Any, buffers: Any, start: int, rows: int) -> None:
    x = value(buffers.values, program, np.int64(0), rows, program.sizes[IN_WIDTH])
    columns, kinds = data.numeric.shape[1], data.categorical.shape[1]
    numeric = part(data.numeric, start * columns, rows * columns)
    categorical = part(data.categorical, start * kinds, rows * kinds)
    encode(program, state, buffers, numeric, categorical, x)


@inner
def _merge_moments(x: Any, count: int, mean: Any, squares: Any, rows: Any) -> None:
    """Merge the moments of x's columns into those of `count` rows before (Chan et al. 1979), in float64."""
    number, width = x.shape
    own, var = part(rows, 0, width), part(rows, width, width)
    column_moments(x, np.int64(0), number, own, var)
    total = count + number
    for j in range(width):
        shift = np.float64(own[j]) - mean[j]
        squares[j] += np.float64(var[j]) * number + shift * shift * (np.float64(count) * number / total)
        mean[j] += shift * number / total
