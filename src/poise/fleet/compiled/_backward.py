"""Gradients of the operations of a program, on one core."""

from __future__ import annotations

from typing import Any

import numpy as np

from poise.fleet.compiled._members import adapt_backward, heads_backward
from poise.fleet.compiled._products import input_grad_product, weight_grad_product
from poise.fleet.compiled._program import (
    ACCUMULATE,
    ACTIVATION,
    ADAPT,
    ADD,
    ALPHA,
    BIAS,
    CHAIN,
    CODE,
    COPIES,
    DROP_PATH,
    EPS,
    FIRST,
    HEADS,
    LAYER_NORM,
    LINEAR,
    NO_NORM,
    NOISE,
    NORM,
    OTHER,
    RATE,
    SCALE,
    SOURCE,
    SOURCE_COPIES,
    SOURCE_GRAD,
    SOURCE_WIDTH,
    STEM,
    STRENGTH,
    TARGET,
    TARGET_GRAD,
    WEIGHT,
    WIDTH,
)
from poise.fleet.compiled._stem import stem_backward
from poise.fleet.compiled._values import (
    NORM_ALONE,
    NORM_RELU,
    NORM_RELU_DROPOUT,
    affine_grads_of,
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
from poise.kernels.cpu._activation import activate_backward, activate_in_part_backward
from poise.kernels.cpu._columns import (
    affine_columns,
    batch_norm_backward,
    batch_norm_relu_backward,
    batch_norm_relu_dropout_backward,
)
from poise.kernels.cpu._jit import inner
from poise.kernels.cpu._norm import (
    add_rows,
    layer_norm,
    layer_norm_backward,
    scale_columns_backward,
    slope_and_shift,
)
from poise.kernels.cpu._view import flat, matrix, part


@inner
def backward(program: Any, state: Any, buffers: Any, strengths: Any, rows: int) -> None:
    """Gradients of all parameters and of the input value, given that of the output value."""
    for index in range(program.ops.shape[0] - 1, -1, -1):
        op = operation(program, index)
        code = op[CODE]
        x = value(buffers.values, program, op[SOURCE], rows * op[SOURCE_COPIES], op[SOURCE_WIDTH])
        g = value(buffers.grads, program, op[TARGET_GRAD], rows * op[COPIES], op[WIDTH])
        gx = value(buffers.grads, program, op[SOURCE_GRAD], rows * op[SOURCE_COPIES], op[SOURCE_WIDTH])
        wanted = op[FIRST] < op[SOURCE_WIDTH]
        if code == LINEAR:
            _linear_backward(op, state, buffers, x, g, gx)
        elif code == STEM:
            stem_backward(op, program, state, buffers, x, g, gx)
        elif code == CHAIN and (wanted or op[NORM] != NO_NORM or op[ALPHA] >= 0):
            _chain_backward(op, program, state, buffers, x, g, strengths)
            _pass_on(op, g, gx)
        elif code == DROP_PATH and wanted:
            if strengths[op[STRENGTH]] > 0:
                mask = flat_value(buffers.masks, program, op[TARGET], g.shape[0])
                for r in range(g.shape[0]):
                    for j in range(g.shape[1]):
                        g[r, j] *= mask[r]
            _pass_on(op, g, gx)
        elif code == ADAPT:
            adapt_backward(op, state, x, g, gx)
        elif code == HEADS:
            heads_backward(op, state, x, g, gx)
        elif code == SCALE:
            _scale_backward(op, program, state, x, g)
            _pass_on(op, g, gx)
        elif code == ADD:
            other = value(buffers.grads, program, op[OTHER], g.shape[0], op[WIDTH])
            copy(g, other)
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
    elif op[SOURCE_GRAD] != op[TARGET_GRAD]:
        copy(g, gx)


@inner
def _linear_backward(op: Any, state: Any, buffers: Any, x: Any, g: Any, gx: Any) -> None:
    rows, depth, width = x.shape[0], x.shape[1], g.shape[1]
    flat_x, flat_g = flat(x), flat(g)
    weight_grad_product(buffers, flat_g, flat_x, state.grad, op[WEIGHT], depth, rows, width, depth)
    if op[BIAS] >= 0:
        add_rows(g, np.int64(0), rows, part(state.grad, op[BIAS], width))
    first, wanted = op[FIRST], depth - op[FIRST]
    if wanted > 0:
        out = flat(buffers.scratch) if op[ACCUMULATE] == 1 else flat(gx)
        input_grad_product(buffers, flat_g, state.weights, op[WEIGHT], out, first, rows, width, depth)
        if op[ACCUMULATE] == 1:
            into = flat(gx)
            for i in range(into.size):
                into[i] += out[i]


@inner
def _scale_backward(op: Any, program: Any, state: Any, x: Any, g: Any) -> None:
    """g ← the gradient of x."""
    weight, grad = part(state.weights, op[ALPHA], op[WIDTH]), part(state.grad, op[ALPHA], op[WIDTH])
    one, rate = g.dtype.type(1), g.dtype.type(program.constants[op[RATE]])
    for r in range(g.shape[0]):
        for j in range(g.shape[1]):
            grad[j] += rate * g[r, j] * x[r, j]
            g[r, j] *= one + rate * weight[j]


@inner
def _bend_backward(op: Any, program: Any, state: Any, buffers: Any, u: Any, g: Any) -> None:
    """g ← the gradient of u, which the nonlinearity read."""
    if op[ALPHA] < 0:
        activate_backward(op[ACTIVATION], flat(u), flat(g))
        return
    width = op[WIDTH]
    weight, grad = part(state.weights, op[ALPHA], width), part(state.grad, op[ALPHA], width)
    # The first two rows may hold slope and shift of a normalization.
    spare, rate = part(buffers.rows, 2 * width, 2 * width), program.constants[op[RATE]]
    activate_in_part_backward(op[ACTIVATION], u, g, weight, rate, grad, spare)


@inner
def _chain_backward(op: Any, program: Any, state: Any, buffers: Any, x: Any, g: Any, strengths: Any) -> None:
    """g ← the gradient of x."""
    rows, width, grads = x.shape[0], op[WIDTH], flat(g)
    mask, dropping = flat_value(buffers.masks, program, op[TARGET], rows * width), drops(op, strengths)
    fusion = fusion_of(op, dropping) if rows > 1 else NORM_ALONE
    if dropping and fusion != NORM_RELU_DROPOUT:
        for i in range(grads.size):
            grads[i] *= mask[i]
    if op[NORM] == NO_NORM:
        _bend_backward(op, program, state, buffers, x, g)
        return
    weight, bias = affine_of(op, state.weights, buffers.scratch)
    weight_grad, bias_grad = affine_grads_of(op, state.grad, buffers.scratch)
    mean, rstd = moments_of(op, program, buffers)
    # What the activation read is computed once more, over the value that it wrote and that is not needed any longer.
    u = value(buffers.values, program, op[TARGET], rows, width)
    if op[NORM] == LAYER_NORM:
        layer_norm(x, rows, mean, rstd, weight, bias, program.constants[op[EPS]], u)
        _bend_backward(op, program, state, buffers, u, g)
        layer_norm_backward(x, g, rows, mean, rstd, weight, weight_grad, bias_grad)
        return
    slope, shift = part(buffers.rows, 0, width), part(buffers.rows, width, width)
    ghosts = num_ghosts(op, rows) if rows > 1 else 1
    for ghost in range(ghosts):
        first, last = ghost_bounds(rows, ghosts, ghost)
        center, scale = part(mean, ghost * width, width), part(rstd, ghost * width, width)
        slope_and_shift(center, scale, weight, bias, slope, shift)
        if fusion == NORM_RELU_DROPOUT:
            batch_norm_relu_dropout_backward(
                x, g, first, last, center, scale, weight, weight_grad, bias_grad, slope, shift, mask
            )
        elif fusion == NORM_RELU:
            batch_norm_relu_backward(
                x, g, first, last, center, scale, weight, weight_grad, bias_grad, slope, shift, mask
            )
        else:
            affine_columns(x, u, first, last, slope, shift, mask)
            start, number = first * width, last - first
            own_u, own_g = matrix(u, start, number, width), matrix(g, start, number, width)
            _bend_backward(op, program, state, buffers, own_u, own_g)
            if rows > 1:
                batch_norm_backward(
                    x, g, first, last, center, scale, weight, weight_grad, bias_grad, slope, shift, mask
                )
            else:
                scale_columns_backward(x, g, center, scale, weight, weight_grad, bias_grad)
