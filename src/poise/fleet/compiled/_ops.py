"""Forward and backward of the operations of a program, on one core."""

from __future__ import annotations

from typing import Any

import numpy as np

from poise.fleet.compiled._program import (
    ACCUMULATE,
    ACTIVATION,
    ADD,
    ALPHA_DROPOUT,
    BIAS,
    CAPACITY,
    CHAIN,
    CODE,
    DROP,
    DROP_PATH,
    EPS,
    FIRST,
    GHOST_SIZE,
    LAYER_NORM,
    LINEAR,
    MOMENTS,
    MOMENTS_SIZE,
    NO_DROP,
    NO_NORM,
    NOISE,
    NORM,
    OTHER,
    RUNNING,
    SOURCE,
    SOURCE_WIDTH,
    STREAM,
    STRENGTH,
    TARGET,
    WEIGHT,
    WIDTH,
)  # fmt: skip
from poise.kernels.cpu._activation import activate, activate_backward
from poise.kernels.cpu._jit import inner
from poise.kernels.cpu._matmul import matmul, transpose
from poise.kernels.cpu._norm import (
    batch_norm_backward,
    column_moments,
    layer_norm,
    layer_norm_backward,
    rsqrt,
    scale_columns,
    scale_columns_backward,
)
from poise.kernels.cpu._philox import add_normal, keep_mask

# Where SELU saturates: -scale · alpha of Klambauer et al.
_SATURATED = -1.7580993408473766


@inner
def value(buffer: Any, program: Any, offset: int, rows: int, width: int) -> Any:
    """The value at `offset` as a matrix (rows, width)."""
    start = offset * program.sizes[CAPACITY]
    return buffer[start : start + rows * width].reshape(rows, width)


@inner
def _flat(buffer: Any, program: Any, offset: int, count: int) -> Any:
    start = offset * program.sizes[CAPACITY]
    return buffer[start : start + count]


@inner
def _affine(op: Any, weights: Any, scratch: Any) -> Any:
    """Weight and bias of a normalization, or ones and zeros."""
    width = op[WIDTH]
    if op[WEIGHT] >= 0:
        return weights[op[WEIGHT] : op[WEIGHT] + width], weights[op[BIAS] : op[BIAS] + width]
    ones, zeros = scratch[:width], scratch[width : 2 * width]
    ones[:] = 1
    zeros[:] = 0
    return ones, zeros


@inner
def _affine_grads(op: Any, grad: Any, scratch: Any) -> Any:
    width = op[WIDTH]
    if op[WEIGHT] >= 0:
        return grad[op[WEIGHT] : op[WEIGHT] + width], grad[op[BIAS] : op[BIAS] + width]
    return scratch[2 * width : 3 * width], scratch[3 * width : 4 * width]


@inner
def _moments(op: Any, program: Any, buffers: Any) -> Any:
    size = program.sizes[MOMENTS_SIZE]
    start = op[MOMENTS] * 2 * size
    return buffers.moments[start : start + size], buffers.moments[start + size : start + 2 * size]


@inner
def _num_ghosts(op: Any, rows: int) -> int:
    number = max(1, rows // op[GHOST_SIZE]) if op[GHOST_SIZE] > 0 else 1
    # A ghost of one row would have no variance.
    return max(1, min(number, rows // 2))


@inner
def _ghost(rows: int, ghosts: int, index: int) -> Any:
    """First row and end of ghost `index`; the first ones are a row longer where the division leaves a rest."""
    size, rest = rows // ghosts, rows % ghosts
    first = index * size + min(index, rest)
    return first, first + size + (1 if index < rest else 0)


@inner
def forward(
    program: Any, state: Any, buffers: Any, strengths: Any, step: int, rows: int, first: int, last: int, training: int
) -> None:
    """Operations first … last - 1 on `rows` rows."""
    for index in range(first, last):
        op = program.ops[index]
        code = op[CODE]
        x = value(buffers.values, program, op[SOURCE], rows, op[SOURCE_WIDTH])
        y = value(buffers.values, program, op[TARGET], rows, op[WIDTH])
        if code == LINEAR:
            _linear(op, state, buffers, x, y)
        elif code == CHAIN:
            _chain(op, program, state, buffers, x, y, strengths, step, training)
        elif code == NOISE:
            y[:] = x
            if training == 1 and strengths[op[STRENGTH]] > 0:
                key = program.streams[op[STREAM]]
                add_normal(y.reshape(y.size), y.size, strengths[op[STRENGTH]], key, step, buffers.bits)
        elif code == DROP_PATH:
            y[:] = x
            if training == 1 and strengths[op[STRENGTH]] > 0:
                mask = _flat(buffers.masks, program, op[TARGET], rows)
                keep_mask(mask, rows, program.streams[op[STREAM]], step, strengths[op[STRENGTH]], buffers.scratch)
                for r in range(rows):
                    for j in range(y.shape[1]):
                        y[r, j] *= mask[r]
        elif code == ADD:
            other = value(buffers.values, program, op[OTHER], rows, op[WIDTH])
            for r in range(rows):
                for j in range(y.shape[1]):
                    y[r, j] = x[r, j] + other[r, j]


@inner
def _linear(op: Any, state: Any, buffers: Any, x: Any, y: Any) -> None:
    rows, depth, width = x.shape[0], x.shape[1], y.shape[1]
    transpose(state.weights, op[WEIGHT], buffers.transposed, width, depth)
    flat_x, flat_y = x.reshape(x.size), y.reshape(y.size)
    zero, one = np.int64(0), np.int64(1)  # a literal would be a type of its own, and compiled once more
    matmul(flat_x, zero, depth, one, buffers.transposed, zero, width, flat_y, zero, width, rows, width, depth)
    if op[BIAS] >= 0:
        bias = state.weights[op[BIAS] : op[BIAS] + width]
        for r in range(rows):
            for j in range(width):
                y[r, j] += bias[j]


@inner
def _chain(
    op: Any, program: Any, state: Any, buffers: Any, x: Any, y: Any, strengths: Any, step: int, training: int
) -> None:
    rows = x.shape[0]
    if op[NORM] == NO_NORM:
        y[:] = x
    else:
        _normalize(op, program, state, buffers, x, y, training)
    flat = y.reshape(y.size)
    activate(op[ACTIVATION], flat)
    if training == 1 and op[DROP] != NO_DROP and strengths[op[STRENGTH]] > 0:
        p = strengths[op[STRENGTH]]
        mask = _flat(buffers.masks, program, op[TARGET], rows * op[WIDTH])
        keep_mask(mask, mask.size, program.streams[op[STREAM]], step, p, buffers.scratch)
        if op[DROP] == ALPHA_DROPOUT:
            _alpha_drop(flat, mask, p)
        else:
            for i in range(flat.size):
                flat[i] *= mask[i]


@inner
def _alpha_scale(p: float) -> float:
    return 1.0 / np.sqrt((1.0 - p) + _SATURATED * _SATURATED * (1.0 - p) * p)


@inner
def _alpha_drop(y: Any, mask: Any, p: float) -> None:
    """y ← a · (y · m + α' · (1 - m)) - a p α'; the mask becomes a · m, its derivative."""
    number = y.dtype.type
    scale = _alpha_scale(p)
    a, saturated, shift = number(scale), number(scale * _SATURATED), number(scale * p * _SATURATED)
    for i in range(y.size):
        kept = mask[i] > number(0)
        y[i] = (a * y[i] if kept else saturated) - shift
        mask[i] = a if kept else number(0)


@inner
def _normalize(op: Any, program: Any, state: Any, buffers: Any, x: Any, y: Any, training: int) -> None:
    rows, width, eps = x.shape[0], op[WIDTH], program.eps[op[EPS]]
    weight, bias = _affine(op, state.weights, buffers.scratch)
    mean, rstd = _moments(op, program, buffers)
    if op[NORM] == LAYER_NORM:
        layer_norm(x, rows, mean, rstd, weight, bias, eps, y)
    elif training == 1 and rows > 1:
        ghosts = _num_ghosts(op, rows)
        for ghost in range(ghosts):
            first, last = _ghost(rows, ghosts, ghost)
            center, scale = mean[ghost * width : (ghost + 1) * width], rstd[ghost * width : (ghost + 1) * width]
            column_moments(x, first, last, center, scale)
            rsqrt(scale, eps)
            scale_columns(x, first, last, center, scale, weight, bias, y)
    else:
        running = state.statistics[op[RUNNING] : op[RUNNING] + 2 * width]
        mean[:width] = running[:width]
        rstd[:width] = running[width:]
        rsqrt(rstd[:width], eps)
        scale_columns(x, 0, rows, mean[:width], rstd[:width], weight, bias, y)


@inner
def backward(program: Any, state: Any, buffers: Any, strengths: Any, rows: int) -> None:
    """Gradients of all parameters and of the input value, given that of the output value."""
    for index in range(program.ops.shape[0] - 1, -1, -1):
        op = program.ops[index]
        code = op[CODE]
        x = value(buffers.values, program, op[SOURCE], rows, op[SOURCE_WIDTH])
        g = value(buffers.grads, program, op[TARGET], rows, op[WIDTH])
        gx = value(buffers.grads, program, op[SOURCE], rows, op[SOURCE_WIDTH])
        wanted = op[FIRST] < op[SOURCE_WIDTH]
        if code == LINEAR:
            _linear_backward(op, state, buffers, x, g, gx)
        elif code == CHAIN and (wanted or op[NORM] != NO_NORM):
            _chain_backward(op, program, state, buffers, x, g, strengths)
            _pass_on(op, g, gx)
        elif code == DROP_PATH and wanted:
            if strengths[op[STRENGTH]] > 0:
                mask = _flat(buffers.masks, program, op[TARGET], rows)
                for r in range(rows):
                    for j in range(g.shape[1]):
                        g[r, j] *= mask[r]
            _pass_on(op, g, gx)
        elif code == ADD:
            other = value(buffers.grads, program, op[OTHER], rows, op[WIDTH])
            other[:] = g
            _pass_on(op, g, gx)
        elif code == NOISE and wanted:
            _pass_on(op, g, gx)


@inner
def _pass_on(op: Any, g: Any, gx: Any) -> None:
    """gx ← g, or gx ← gx + g where the source is read by a later operation too."""
    if op[ACCUMULATE] == 1:
        for r in range(g.shape[0]):
            for j in range(g.shape[1]):
                gx[r, j] += g[r, j]
    else:
        gx[:] = g


@inner
def _linear_backward(op: Any, state: Any, buffers: Any, x: Any, g: Any, gx: Any) -> None:
    rows, depth, width = x.shape[0], x.shape[1], g.shape[1]
    flat_x, flat_g = x.reshape(x.size), g.reshape(g.size)
    zero, one = np.int64(0), np.int64(1)
    matmul(flat_g, zero, one, width, flat_x, zero, depth, state.grad, op[WEIGHT], depth, width, depth, rows)
    if op[BIAS] >= 0:
        bias = state.grad[op[BIAS] : op[BIAS] + width]
        for r in range(rows):
            for j in range(width):
                bias[j] += g[r, j]
    first, wanted = op[FIRST], depth - op[FIRST]
    if wanted > 0:
        out = buffers.scratch if op[ACCUMULATE] == 1 else gx.reshape(gx.size)
        matmul(
            flat_g, zero, width, one, state.weights, op[WEIGHT] + first, depth, out, first, depth, rows, wanted, width
        )
        if op[ACCUMULATE] == 1:
            into = gx.reshape(gx.size)
            for i in range(into.size):
                into[i] += out[i]


@inner
def _chain_backward(op: Any, program: Any, state: Any, buffers: Any, x: Any, g: Any, strengths: Any) -> None:
    """g ← the gradient of x."""
    rows, width = x.shape[0], op[WIDTH]
    flat = g.reshape(g.size)
    if op[DROP] != NO_DROP and strengths[op[STRENGTH]] > 0:
        mask = _flat(buffers.masks, program, op[TARGET], rows * width)
        for i in range(flat.size):
            flat[i] *= mask[i]
    if op[NORM] == NO_NORM:
        activate_backward(op[ACTIVATION], x.reshape(x.size), flat)
        return
    weight, bias = _affine(op, state.weights, buffers.scratch)
    weight_grad, bias_grad = _affine_grads(op, state.grad, buffers.scratch)
    mean, rstd = _moments(op, program, buffers)
    # What the activation read is computed once more, over the value that it wrote and that is not needed any longer.
    u = value(buffers.values, program, op[TARGET], rows, width)
    if op[NORM] == LAYER_NORM:
        layer_norm(x, rows, mean, rstd, weight, bias, program.eps[op[EPS]], u)
        activate_backward(op[ACTIVATION], u.reshape(u.size), flat)
        layer_norm_backward(x, g, rows, mean, rstd, weight, weight_grad, bias_grad)
        return
    ghosts = _num_ghosts(op, rows) if rows > 1 else 1
    for ghost in range(ghosts):
        first, last = _ghost(rows, ghosts, ghost)
        center, scale = mean[ghost * width : (ghost + 1) * width], rstd[ghost * width : (ghost + 1) * width]
        scale_columns(x, first, last, center, scale, weight, bias, u)
    activate_backward(op[ACTIVATION], u.reshape(u.size), flat)
    for ghost in range(ghosts):
        first, last = _ghost(rows, ghosts, ghost)
        center, scale = mean[ghost * width : (ghost + 1) * width], rstd[ghost * width : (ghost + 1) * width]
        if rows > 1:
            batch_norm_backward(x, g, first, last, center, scale, weight, weight_grad, bias_grad)
        else:
            scale_columns_backward(x, g, center, scale, weight, weight_grad, bias_grad)
