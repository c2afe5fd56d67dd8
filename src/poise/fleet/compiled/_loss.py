"""Losses of the tasks and their gradients: the twins of `functional.losses`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from poise.fleet.compiled._program import BINARY, MULTICLASS
from poise.kernels.cpu._jit import inner
from poise.kernels.cpu._math import exp, log, sigmoid
from poise.kernels.cpu._vector import select


@inner
def loss_gradient(
    task: int, outputs: Any, targets: Any, weight: Any, smoothing: float, members: int, grad: Any
) -> None:
    """Gradient of the weighted mean loss in the outputs, `members` rows of them for each of B rows.

    The targets (B · C,) are flat, and smoothed towards 1 / classes.
    """
    rows, width = outputs.shape
    number = outputs.dtype.type
    share = number(1.0 / rows)
    keep, neutral = number(1.0 - smoothing), number(smoothing / max(2, width))
    for i in range(rows):
        row = i // members
        w = weight[row] * share
        if task == BINARY:
            t = keep * targets[row] + neutral
            grad[i, 0] = w * (sigmoid(outputs[i, 0]) - t)
        elif task == MULTICLASS:
            top, total, mass = outputs[i, 0], number(0), number(0)
            for k in range(1, width):
                top = max(top, outputs[i, k])
            for k in range(width):
                grad[i, k] = exp(outputs[i, k] - top)
                total += grad[i, k]
                mass += keep * targets[row * width + k] + neutral
            for k in range(width):
                t = keep * targets[row * width + k] + neutral
                grad[i, k] = w * (grad[i, k] / total * mass - t)
        else:
            grad[i, 0] = w * number(2) * (outputs[i, 0] - targets[row])


@inner
def add_scores(task: int, outputs: Any, targets: Any, weight: Any, first: int, sums: Any) -> None:
    """Add to sums the weighted losses and the weighted hits (or squared residuals) of rows first, first + 1, … ."""
    rows, width = outputs.shape
    if task == BINARY:
        _add_binary(outputs, targets, weight, first, sums)
        return
    for i in range(rows):
        w = np.float64(weight[first + i])
        if task == MULTICLASS:
            best, wanted = 0, 0
            for k in range(1, width):
                best = k if outputs[i, k] > outputs[i, best] else best
                wanted = k if targets[first + i, k] > targets[first + i, wanted] else wanted
            total, linear, mass = 0.0, 0.0, 0.0
            for k in range(width):
                z, t = outputs[i, k] - outputs[i, best], np.float64(targets[first + i, k])
                total += np.float64(exp(z))
                linear += t * z
                mass += t
            sums[0] += w * (mass * math.log(total) - linear)
            sums[1] += w if best == wanted else 0.0
        else:
            residual = np.float64(outputs[i, 0]) - np.float64(targets[first + i, 0])
            sums[0] += w * residual * residual
            sums[1] += w * residual * residual


@inner
def _add_binary(outputs: Any, targets: Any, weight: Any, first: int, sums: Any) -> None:
    loss, hits = 0.0, 0.0
    for i in range(outputs.shape[0]):
        z, t, w = outputs[i, 0], targets[first + i, 0], np.float64(weight[first + i])
        # softplus(z) = max(z, 0) + log(1 + exp(-|z|))
        rest = log(1.0 + np.float64(exp(-abs(z))))
        above = np.float64(select(z > 0, z, z * outputs.dtype.type(0)))
        loss += w * (above + rest - np.float64(t) * np.float64(z))
        hits += select((z > 0) == (t > 0.5), w, 0.0)
    sums[0] += loss
    sums[1] += hits
