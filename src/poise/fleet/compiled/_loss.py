"""Losses of the tasks and their gradients: the twins of `functional.losses`."""

from __future__ import annotations

from typing import Any

import numpy as np

from poise.fleet.compiled._program import BINARY, MULTICLASS
from poise.kernels.cpu._jit import inner
from poise.kernels.cpu._math import exp, log, sigmoid
from poise.kernels.cpu._vector import select
from poise.kernels.cpu._view import flat


@inner
def loss_gradient(
    task: int, outputs: Any, targets: Any, weight: Any, smoothing: float, members: int, grad: Any
) -> None:
    """Gradient of the weighted mean loss in the outputs, `members` rows of them for each of B rows.

    The targets (B · C,) are flat, and smoothed towards 1 / classes.
    """
    rows, width = outputs.shape
    number, share = outputs.dtype.type, outputs.dtype.type(1.0 / rows)
    keep, neutral = number(1.0 - smoothing), number(smoothing / max(2, width))
    if task == MULTICLASS:
        _multiclass_gradient(outputs, targets, weight, keep, neutral, members, grad)
        return
    for i in range(rows):
        row = i // members
        w = weight[row] * share
        if task == BINARY:
            t = keep * targets[row] + neutral
            grad[i, 0] = w * (sigmoid(outputs[i, 0]) - t)
        else:
            grad[i, 0] = w * number(2) * (outputs[i, 0] - targets[row])


@inner
def _multiclass_gradient(
    outputs: Any, targets: Any, weight: Any, keep: Any, neutral: Any, members: int, grad: Any
) -> None:
    rows, width = outputs.shape
    number, share = outputs.dtype.type, outputs.dtype.type(1.0 / rows)
    for i in range(rows):
        top = outputs[i, 0]
        for k in range(1, width):
            top = max(top, outputs[i, k])
        for k in range(width):
            grad[i, k] = outputs[i, k] - top
    _exponentiate(grad)
    for i in range(rows):
        row = i // members
        w, total, mass = weight[row] * share, number(0), number(0)
        for k in range(width):
            total += grad[i, k]
            mass += keep * targets[row * width + k] + neutral
        for k in range(width):
            t = keep * targets[row * width + k] + neutral
            grad[i, k] = w * (grad[i, k] / total * mass - t)


@inner
def _exponentiate(z: Any) -> None:
    """z ← exp(z), all rows as one vector: those of few classes would leave most lanes empty."""
    values = flat(z)
    for i in range(values.size):
        values[i] = exp(values[i])


@inner
def add_scores(task: int, outputs: Any, targets: Any, weight: Any, first: int, sums: Any) -> None:
    """Add to sums the weighted losses and the weighted hits (or squared residuals) of rows first, first + 1, … .

    It may write over the outputs.
    """
    if task == BINARY:
        _add_binary(outputs, targets, weight, first, sums)
    elif task == MULTICLASS:
        _add_multiclass(outputs, targets, weight, first, sums)
    else:
        for i in range(outputs.shape[0]):
            residual = np.float64(outputs[i, 0]) - np.float64(targets[first + i, 0])
            squared = np.float64(weight[first + i]) * residual * residual
            sums[0] += squared
            sums[1] += squared


@inner
def _add_multiclass(outputs: Any, targets: Any, weight: Any, first: int, sums: Any) -> None:
    rows, width = outputs.shape
    for i in range(rows):
        w, best, wanted = np.float64(weight[first + i]), 0, 0
        for k in range(1, width):
            best = k if outputs[i, k] > outputs[i, best] else best
            wanted = k if targets[first + i, k] > targets[first + i, wanted] else wanted
        top, linear = outputs[i, best], 0.0
        for k in range(width):
            outputs[i, k] -= top
            linear += np.float64(targets[first + i, k]) * outputs[i, k]
        sums[0] -= w * linear
        sums[1] += w if best == wanted else 0.0
    _exponentiate(outputs)
    for i in range(rows):
        total, mass = 0.0, 0.0
        for k in range(width):
            total += np.float64(outputs[i, k])
            mass += np.float64(targets[first + i, k])
        sums[0] += np.float64(weight[first + i]) * mass * log(total)


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
