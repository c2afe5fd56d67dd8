"""The operations of a program, on one core."""

from __future__ import annotations

from typing import Any

import numpy as np

from poise.fleet.compiled._products import forward_product
from poise.fleet.compiled._program import (
    ACTIVATION,
    ADD,
    ALPHA_DROPOUT,
    BIAS,
    CHAIN,
    CODE,
    DROP,
    DROP_PATH,
    EPS,
    LAYER_NORM,
    LINEAR,
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
)
from poise.fleet.compiled._values import affine_of, copy, flat_value, ghost_bounds, moments_of, num_ghosts, value
from poise.kernels.cpu._activation import activate
from poise.kernels.cpu._columns import column_moments
from poise.kernels.cpu._jit import inner
from poise.kernels.cpu._matmul import matmul_transposed
from poise.kernels.cpu._norm import layer_norm, rsqrt, scale_columns
from poise.kernels.cpu._philox import add_normal, keep_mask

# Where SELU saturates: -scale · alpha of Klambauer et al.
_SATURATED = -1.7580993408473766
# So few outputs fill no vector; sums along the inputs do.
_FEW = 4


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
            linear(op, state, buffers, x, y)
        elif code == CHAIN:
            chain(op, program, state, buffers, x, y, strengths, step, training)
        elif code == NOISE:
            copy(x, y)
            if training == 1 and strengths[op[STRENGTH]] > 0:
                key = program.streams[op[STREAM]]
                add_normal(y.reshape(y.size), y.size, strengths[op[STRENGTH]], key, step, buffers.bits)
        elif code == DROP_PATH:
            copy(x, y)
            if training == 1 and strengths[op[STRENGTH]] > 0:
                mask = flat_value(buffers.masks, program, op[TARGET], rows)
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
def linear(op: Any, state: Any, buffers: Any, x: Any, y: Any) -> None:
    """y = x Wᵀ + b."""
    rows, depth, width = x.shape[0], x.shape[1], y.shape[1]
    flat_x, flat_y = x.reshape(x.size), y.reshape(y.size)
    if width <= _FEW:
        matmul_transposed(flat_x, state.weights[op[WEIGHT] : op[WEIGHT] + width * depth], flat_y, rows, width, depth)
    else:
        forward_product(buffers, flat_x, state.weights, op[WEIGHT], flat_y, rows, width, depth)
    if op[BIAS] >= 0:
        bias = state.weights[op[BIAS] : op[BIAS] + width]
        for r in range(rows):
            for j in range(width):
                y[r, j] += bias[j]


@inner
def chain(
    op: Any, program: Any, state: Any, buffers: Any, x: Any, y: Any, strengths: Any, step: int, training: int
) -> None:
    """y = dropout(act(norm(x)))."""
    if op[NORM] == NO_NORM:
        copy(x, y)
    else:
        _normalize(op, program, state, buffers, x, y, training)
    flat = y.reshape(y.size)
    activate(op[ACTIVATION], flat)
    if training == 1 and op[DROP] != NO_DROP and strengths[op[STRENGTH]] > 0:
        p = strengths[op[STRENGTH]]
        mask = flat_value(buffers.masks, program, op[TARGET], y.size)
        keep_mask(mask, mask.size, program.streams[op[STREAM]], step, p, buffers.scratch)
        if op[DROP] == ALPHA_DROPOUT:
            _alpha_drop(flat, mask, p)
        else:
            for i in range(flat.size):
                flat[i] *= mask[i]


@inner
def _alpha_scale(p: float) -> Any:
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
    weight, bias = affine_of(op, state.weights, buffers.scratch)
    mean, rstd = moments_of(op, program, buffers)
    if op[NORM] == LAYER_NORM:
        layer_norm(x, rows, mean, rstd, weight, bias, eps, y)
    elif training == 1 and rows > 1:
        ghosts = num_ghosts(op, rows)
        for ghost in range(ghosts):
            first, last = ghost_bounds(rows, ghosts, ghost)
            center, scale = mean[ghost * width : (ghost + 1) * width], rstd[ghost * width : (ghost + 1) * width]
            column_moments(x, first, last, center, scale)
            rsqrt(scale, eps)
            scale_columns(x, first, last, center, scale, weight, bias, y, buffers.rows)
    else:
        running = state.statistics[op[RUNNING] : op[RUNNING] + 2 * width]
        mean[:width] = running[:width]
        rstd[:width] = running[width:]
        rsqrt(rstd[:width], eps)
        scale_columns(x, 0, rows, mean[:width], rstd[:width], weight, bias, y, buffers.rows)
