"""From gradients to weights: decay, clipping, Adam, proximal steps, projections, averages."""

from __future__ import annotations

from typing import Any

import numpy as np

from poise.fleet.compiled._program import (
    ADAM,
    GRADIENT_CLIP,
    GROUP_LASSO,
    L1,
    L2,
    LEARNING_RATE,
    MAX_NORM,
    WEIGHT_DECAY,
)
from poise.kernels.cpu._jit import inner
from poise.kernels.cpu._view import matrix, part

KERNEL, BIAS, NORM, EMBEDDING, SCALE = range(5)


@inner
def update(program: Any, state: Any, strengths: Any, step: int, scratch: Any) -> None:
    """One optimizer step with all that the recipe does round it; `step` counts from 0."""
    lr = strengths[LEARNING_RATE]
    kept, decaying = 1.0, np.int64(0)
    if strengths[L2] > 0:
        _add_l2(program, state, strengths[L2])
    for index in range(program.updates.shape[0]):
        code, strength, roles = (
            program.updates[index, 0],
            strengths[program.updates[index, 1]],
            program.updates[index, 2],
        )
        if code == WEIGHT_DECAY:
            kept, decaying = 1.0 - lr * strength, roles
        elif code == GRADIENT_CLIP:
            _clip(program, state.grad, strength)
        elif code == ADAM:
            _adam(program, state, lr, step + 1, kept, decaying)
        elif code == L1:
            _shrink(program, state.weights, lr * strength)
        elif code == GROUP_LASSO:
            _shrink_groups(program, state.weights, lr * strength, scratch)
        elif code == MAX_NORM:
            _project(program, state.weights, strength)


@inner
def _parameter(program: Any, index: int) -> Any:
    """Offset, rows, columns and role of a parameter."""
    return part(program.params, index * 4, 4)


@inner
def _part(vector: Any, param: Any) -> Any:
    return part(vector, param[0], param[1] * param[2])


@inner
def clear(program: Any, grad: Any) -> None:
    """Zero the gradients that are added up; those of kernels are written as a whole."""
    for index in range(program.params.shape[0]):
        param = _parameter(program, index)
        if param[3] != KERNEL:
            g = _part(grad, param)
            for i in range(g.size):
                g[i] = 0


@inner
def _add_l2(program: Any, state: Any, strength: float) -> None:
    for index in range(program.params.shape[0]):
        param = _parameter(program, index)
        if param[3] == KERNEL:
            w, g = _part(state.weights, param), _part(state.grad, param)
            factor = w.dtype.type(2.0 * strength)
            for i in range(w.size):
                g[i] += factor * w[i]


@inner
def _norm_of(w: Any) -> Any:
    total = w.dtype.type(0)
    for i in range(w.size):
        total += w[i] * w[i]
    return np.sqrt(np.float64(total))


@inner
def _clip(program: Any, grad: Any, bound: float) -> None:
    total = 0.0
    for index in range(program.params.shape[0]):
        param = _parameter(program, index)
        norm = _norm_of(_part(grad, param))
        total += norm * norm
    norm = np.sqrt(total)
    # A norm that is not a number must reach the weights, where it is seen.
    factor = grad.dtype.type(bound / (bound if norm < bound else norm))
    for i in range(grad.size):
        grad[i] *= factor


@inner
def _adam(program: Any, state: Any, lr: float, step: int, kept: float, decaying: int) -> None:
    """Adam's step; the weights of `decaying` roles are multiplied by `kept` before it, in the same pass."""
    beta1, beta2, eps, bias_lr = program.optimizer
    number = state.weights.dtype.type
    old, new, eps_ = number(beta2), number(1.0 - beta2), number(eps)
    lean = number(1.0 - beta1)
    correction = number(np.sqrt(1.0 - beta2**step))
    for index in range(program.params.shape[0]):
        param = _parameter(program, index)
        rate = number(lr * (bias_lr if param[3] == BIAS else 1.0) / (1.0 - beta1**step))
        w, g = _part(state.weights, param), _part(state.grad, param)
        m, v = _part(state.exp_avg, param), _part(state.exp_avg_sq, param)
        factor = number(kept if (decaying >> param[3]) & 1 else 1.0)
        for i in range(w.size):
            m[i] += lean * (g[i] - m[i])
            v[i] = old * v[i] + new * g[i] * g[i]
            w[i] = w[i] * factor - rate * m[i] / (np.sqrt(v[i]) / correction + eps_)


@inner
def _shrink(program: Any, weights: Any, threshold: float) -> None:
    for index in range(program.params.shape[0]):
        param = _parameter(program, index)
        if param[3] == KERNEL:
            w = _part(weights, param)
            zero, bound = w.dtype.type(0), w.dtype.type(threshold)
            for i in range(w.size):
                size = abs(w[i]) - bound
                # Not a number stays what it is.
                w[i] = zero if size <= zero else (size if w[i] > zero else -size)


@inner
def _shrink_groups(program: Any, weights: Any, threshold: float, scratch: Any) -> None:
    """Groups are the columns of a kernel: the weights that leave one input."""
    for index in range(program.params.shape[0]):
        param = _parameter(program, index)
        if param[3] == KERNEL:
            w = matrix(weights, param[0], param[1], param[2])
            squares, number = part(scratch, 0, param[2]), w.dtype.type
            for j in range(param[2]):
                squares[j] = 0
            for r in range(param[1]):
                for j in range(param[2]):
                    squares[j] += w[r, j] * w[r, j]
            bound = number(threshold * np.sqrt(np.float64(param[1])))
            for j in range(param[2]):
                norm = np.sqrt(squares[j])
                squares[j] = number(0) if norm <= bound else number(1) - bound / norm
            for r in range(param[1]):
                for j in range(param[2]):
                    w[r, j] *= squares[j]


@inner
def _project(program: Any, weights: Any, bound: float) -> None:
    """The weights that enter each unit, a row of a kernel, get a norm of at most `bound`."""
    for index in range(program.params.shape[0]):
        param = _parameter(program, index)
        if param[3] == KERNEL:
            w = matrix(weights, param[0], param[1], param[2])
            for r in range(param[1]):
                norm = _norm_of(part(w, r * param[2], param[2]))
                if norm > bound:
                    factor = w.dtype.type(bound / norm)
                    for j in range(param[2]):
                        w[r, j] *= factor


@inner
def average(state: Any, rate: float) -> None:
    """average ← average + rate · (weights - average), as torch.lerp rounds it."""
    number = state.weights.dtype.type
    part, rest, near = number(rate), number(1) - number(rate), number(rate) < number(0.5)
    old, new = state.average, state.weights
    for i in range(new.size):
        gap = new[i] - old[i]
        old[i] = old[i] + part * gap if near else new[i] - gap * rest
