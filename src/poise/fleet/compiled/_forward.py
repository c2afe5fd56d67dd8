"""The operations of a program, on one core."""

from __future__ import annotations

from typing import Any

import numpy as np

from poise.fleet.compiled._members import adapt, heads
from poise.fleet.compiled._products import forward_product
from poise.fleet.compiled._program import (
    ACTIVATION,
    ADAPT,
    ADD,
    ALPHA,
    ALPHA_DROPOUT,
    CHAIN,
    CODE,
    COPIES,
    DROP,
    DROP_PATH,
    EPS,
    HEADS,
    LAYER_NORM,
    LINEAR,
    NO_NORM,
    NOISE,
    NORM,
    OTHER,
    RATE,
    RUNNING,
    SCALE,
    SOURCE,
    SOURCE_COPIES,
    SOURCE_WIDTH,
    STEM,
    STREAM,
    STRENGTH,
    TARGET,
    WEIGHT,
    WIDTH,
)
from poise.fleet.compiled._stem import prepare_stem, stem
from poise.fleet.compiled._values import (
    NORM_ALONE,
    NORM_RELU,
    NORM_RELU_DROPOUT,
    add_bias,
    affine_of,
    copy,
    drops,
    flat_value,
    fusion_of,
    ghost_bounds,
    moments_of,
    num_ghosts,
    operation,
    value,
)
from poise.kernels.cpu._activation import activate, activate_in_part
from poise.kernels.cpu._columns import (
    affine_columns,
    affine_relu_columns,
    affine_relu_dropout_columns,
    column_moments,
)
from poise.kernels.cpu._jit import inner
from poise.kernels.cpu._matmul import matmul_transposed
from poise.kernels.cpu._norm import layer_norm, rsqrt, slope_and_shift
from poise.kernels.cpu._philox import add_normal, keep_mask
from poise.kernels.cpu._view import flat, part

# Where SELU saturates: -scale · alpha of Klambauer et al.
_SATURATED = -1.7580993408473766
# So few outputs fill no vector; sums along the inputs do.
_FEW = 4


@inner
def forward(
    program: Any, state: Any, buffers: Any, strengths: Any, step: int, rows: int, first: int, last: int, training: int
) -> None:
    """Operations first … last - 1 on `rows` rows of the batch; in eval mode, with a stem that is prepared."""
    for index in range(first, last):
        op = operation(program, index)
        code = op[CODE]
        x = value(buffers.values, program, op[SOURCE], rows * op[SOURCE_COPIES], op[SOURCE_WIDTH])
        y = value(buffers.values, program, op[TARGET], rows * op[COPIES], op[WIDTH])
        if code == LINEAR:
            linear(op, state, buffers, x, y)
        elif code == STEM:
            if training == 1:
                prepare_stem(op, program, state, buffers)
            stem(op, program, state, buffers, x, y)
        elif code == CHAIN:
            chain(op, program, state, buffers, x, y, strengths, step, training)
        elif code == NOISE:
            copy(x, y)
            if training == 1 and strengths[op[STRENGTH]] > 0:
                key = program.streams[op[STREAM]]
                add_normal(flat(y), y.size, strengths[op[STRENGTH]], key, step, buffers.bits)
        elif code == DROP_PATH:
            copy(x, y)
            if training == 1 and strengths[op[STRENGTH]] > 0:
                mask = flat_value(buffers.masks, program, op[TARGET], y.shape[0])
                keep_mask(mask, mask.size, program.streams[op[STREAM]], step, strengths[op[STRENGTH]], buffers.scratch)
                for r in range(y.shape[0]):
                    for j in range(y.shape[1]):
                        y[r, j] *= mask[r]
        elif code == ADAPT:
            adapt(op, state, x, y)
        elif code == HEADS:
            heads(op, state, x, y)
        elif code == SCALE:
            _scale_features(op, program, state, x, y)
        elif code == ADD:
            other = value(buffers.values, program, op[OTHER], y.shape[0], op[WIDTH])
            for r in range(y.shape[0]):
                for j in range(y.shape[1]):
                    y[r, j] = x[r, j] + other[r, j]


@inner
def linear(op: Any, state: Any, buffers: Any, x: Any, y: Any) -> None:
    """y = x Wᵀ + b."""
    rows, depth, width = x.shape[0], x.shape[1], y.shape[1]
    flat_x, flat_y = flat(x), flat(y)
    if width <= _FEW:
        matmul_transposed(flat_x, part(state.weights, op[WEIGHT], width * depth), flat_y, rows, width, depth)
    else:
        forward_product(buffers, flat_x, state.weights, op[WEIGHT], flat_y, rows, width, depth)
    add_bias(op, state, y)


@inner
def chain(
    op: Any, program: Any, state: Any, buffers: Any, x: Any, y: Any, strengths: Any, step: int, training: int
) -> None:
    """y = dropout(act(norm(x)))."""
    values, mask = flat(y), flat_value(buffers.masks, program, op[TARGET], y.size)
    dropping = training == 1 and drops(op, strengths)
    if dropping:
        keep_mask(mask, mask.size, program.streams[op[STREAM]], step, strengths[op[STRENGTH]], buffers.scratch)
    fusion = fusion_of(op, dropping)
    if op[NORM] == NO_NORM:
        copy(x, y)
    else:
        _normalize(op, program, state, buffers, x, y, mask, fusion, training)
    if fusion == NORM_ALONE and op[ALPHA] >= 0:
        weight, spare = part(state.weights, op[ALPHA], op[WIDTH]), part(buffers.rows, 2 * op[WIDTH], op[WIDTH])
        activate_in_part(op[ACTIVATION], y, weight, program.constants[op[RATE]], spare)
    elif fusion == NORM_ALONE:
        activate(op[ACTIVATION], values)
    if dropping and op[DROP] == ALPHA_DROPOUT:
        _alpha_drop(values, mask, strengths[op[STRENGTH]])
    elif dropping and fusion != NORM_RELU_DROPOUT:
        for i in range(values.size):
            values[i] *= mask[i]


@inner
def _scale_features(op: Any, program: Any, state: Any, x: Any, y: Any) -> None:
    weight, number = part(state.weights, op[ALPHA], op[WIDTH]), x.dtype.type
    one, rate = number(1), number(program.constants[op[RATE]])
    for r in range(x.shape[0]):
        for j in range(x.shape[1]):
            y[r, j] = x[r, j] * (one + rate * weight[j])


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
def _normalize(
    op: Any, program: Any, state: Any, buffers: Any, x: Any, y: Any, mask: Any, fusion: int, training: int
) -> None:
    rows, width, eps = x.shape[0], op[WIDTH], program.constants[op[EPS]]
    slope, shift = part(buffers.rows, 0, width), part(buffers.rows, width, width)
    weight, bias = affine_of(op, state.weights, buffers.scratch)
    mean, rstd = moments_of(op, program, buffers)
    if op[NORM] == LAYER_NORM:
        layer_norm(x, rows, mean, rstd, weight, bias, eps, y)
    elif training == 1 and rows > 1:
        ghosts = num_ghosts(op, rows)
        for ghost in range(ghosts):
            first, last = ghost_bounds(rows, ghosts, ghost)
            center, scale = part(mean, ghost * width, width), part(rstd, ghost * width, width)
            column_moments(x, first, last, center, scale)
            rsqrt(scale, eps)
            slope_and_shift(center, scale, weight, bias, slope, shift)
            _scale(x, y, first, last, slope, shift, mask, fusion)
    else:
        center, scale = part(mean, 0, width), part(rstd, 0, width)
        copy(part(state.statistics, op[RUNNING], width), center)
        copy(part(state.statistics, op[RUNNING] + width, width), scale)
        rsqrt(scale, eps)
        slope_and_shift(center, scale, weight, bias, slope, shift)
        _scale(x, y, np.int64(0), rows, slope, shift, mask, fusion)


@inner
def _scale(x: Any, y: Any, first: int, last: int, slope: Any, shift: Any, mask: Any, fusion: int) -> None:
    if fusion == NORM_ALONE:
        affine_columns(x, y, first, last, slope, shift, mask)
    elif fusion == NORM_RELU:
        affine_relu_columns(x, y, first, last, slope, shift, mask)
    else:
        affine_relu_dropout_columns(x, y, first, last, slope, shift, mask)
