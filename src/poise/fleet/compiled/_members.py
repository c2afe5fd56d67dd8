"""Members that share a network: their views of the inputs, their outputs, and the average of these."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from poise.fleet.compiled._program import BIAS, BINARY, COPIES, MULTICLASS, WEIGHT, WIDTH
from poise.kernels.cpu._jit import inner
from poise.kernels.cpu._view import matrix, part


@inner
def adapt(op: Any, state: Any, x: Any, y: Any) -> None:
    """y_bk = r_k ∘ x_b."""
    members, width = op[COPIES], op[WIDTH]
    weight = matrix(state.weights, op[WEIGHT], members, width)
    for b in range(x.shape[0]):
        for k in range(members):
            for j in range(width):
                y[b * members + k, j] = x[b, j] * weight[k, j]


@inner
def adapt_backward(op: Any, state: Any, x: Any, g: Any, gx: Any) -> None:
    """gx ← the gradient of x; adds to that of r."""
    members, width = op[COPIES], op[WIDTH]
    weight, grad = (
        matrix(state.weights, op[WEIGHT], members, width),
        matrix(state.grad, op[WEIGHT], members, width),
    )
    for b in range(x.shape[0]):
        for j in range(width):
            gx[b, j] = 0
        for k in range(members):
            for j in range(width):
                own = g[b * members + k, j]
                grad[k, j] += own * x[b, j]
                gx[b, j] += own * weight[k, j]


@inner
def heads(op: Any, state: Any, x: Any, y: Any) -> None:
    """y_bk = W_k x_bk + b_k; few outputs, so sums run along the inputs."""
    members, width, depth = op[COPIES], op[WIDTH], x.shape[1]
    for r in range(x.shape[0]):
        k = r % members
        for c in range(width):
            w, total = part(state.weights, op[WEIGHT] + (k * width + c) * depth, depth), x.dtype.type(0)
            for j in range(depth):
                total += x[r, j] * w[j]
            y[r, c] = total + state.weights[op[BIAS] + k * width + c]


@inner
def heads_backward(op: Any, state: Any, x: Any, g: Any, gx: Any) -> None:
    """gx ← the gradient of x; writes that of W, adds to that of b."""
    members, width, depth = op[COPIES], op[WIDTH], x.shape[1]
    whole = part(state.grad, op[WEIGHT], members * width * depth)
    for i in range(whole.size):
        whole[i] = 0
    for r in range(x.shape[0]):
        k = r % members
        for j in range(depth):
            gx[r, j] = 0
        for c in range(width):
            at, own = (k * width + c) * depth, g[r, c]
            w, grad = part(state.weights, op[WEIGHT] + at, depth), part(state.grad, op[WEIGHT] + at, depth)
            for j in range(depth):
                grad[j] += own * x[r, j]
                gx[r, j] += own * w[j]
            state.grad[op[BIAS] + k * width + c] += own


@inner
def average_members(task: int, outputs: Any, members: int) -> Any:
    """Outputs (B · K, C) become, in place, outputs (B, C) of the mean prediction, which are returned."""
    rows, width = outputs.shape[0] // members, outputs.shape[1]
    mean = matrix(outputs, 0, rows, width)
    for b in range(rows):
        own = matrix(outputs, b * members * width, members, width)
        if task == BINARY:
            mean[b, 0] = _log_sum(own, members, 1.0) - _log_sum(own, members, -1.0)
        elif task == MULTICLASS:
            _log_mean_softmax(own, part(mean, b * width, width))
        else:
            total = 0.0
            for k in range(members):
                total += np.float64(own[k, 0])
            mean[b, 0] = total / members
    return mean


@inner
def _log_sigmoid(z: float) -> Any:
    return min(z, 0.0) - math.log1p(math.exp(-abs(z)))


@inner
def _log_sum(z: Any, members: int, sign: float) -> Any:
    """log Σ_k sigmoid(± z_k); a value that is not a number stays one."""
    top = _log_sigmoid(sign * np.float64(z[0, 0]))
    for k in range(1, members):
        top = max(top, _log_sigmoid(sign * np.float64(z[k, 0])))
    total = 0.0
    for k in range(members):
        total += math.exp(_log_sigmoid(sign * np.float64(z[k, 0])) - top)
    return top + math.log(total)


@inner
def _log_mean_softmax(z: Any, mean: Any) -> None:
    """mean ← log of the mean over rows of softmax(z); z becomes its log softmax."""
    members, width = z.shape
    for k in range(members):
        top, total = z[k, 0], 0.0
        for c in range(1, width):
            top = max(top, z[k, c])
        for c in range(width):
            total += math.exp(np.float64(z[k, c]) - np.float64(top))
        shift = np.float64(top) + math.log(total)
        for c in range(width):
            z[k, c] = np.float64(z[k, c]) - shift
    for c in range(width):
        top, total = z[0, c], 0.0
        for k in range(1, members):
            top = max(top, z[k, c])
        for k in range(members):
            total += math.exp(np.float64(z[k, c]) - np.float64(top))
        mean[c] = np.float64(top) + math.log(total) - math.log(np.float64(members))
