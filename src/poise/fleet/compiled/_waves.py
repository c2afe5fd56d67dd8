"""`PeriodicEmbedding` on one core: a feature at a time, rows side by side in vector registers."""

from __future__ import annotations

import math
from typing import Any

from poise.fleet.compiled._program import NUM_NUMERIC, NUM_WAVES
from poise.kernels.cpu._jit import inner
from poise.kernels.cpu._math import cos_sin_of_turns
from poise.kernels.cpu._view import part

VECTORS = 3  # a number, a cosine and a sine for each row; as many again as a feature has outputs


@inner
def add_waves(program: Any, weights: Any, numeric: Any, x: Any, scratch: Any) -> None:
    """Fill the columns of x that hold mixtures of waves of the flat numbers (B · D,)."""
    for index in range(program.waves.shape[0]):
        layer = part(program.waves, index * NUM_WAVES, NUM_WAVES)
        for feature in range(layer[0]):
            _mix_feature(program, layer, weights, numeric, feature, x, scratch)


@inner
def waves_backward(program: Any, state: Any, numeric: Any, gx: Any, scratch: Any) -> None:
    """Add the gradients of frequencies, weights and biases, given that of x."""
    for index in range(program.waves.shape[0]):
        layer = part(program.waves, index * NUM_WAVES, NUM_WAVES)
        for feature in range(layer[0]):
            _feature_backward(program, layer, state, numeric, feature, gx, scratch)


@inner
def _numbers(program: Any, numeric: Any, feature: int, rows: int, scratch: Any) -> Any:
    z, columns = part(scratch, 0, rows), program.sizes[NUM_NUMERIC]
    for i in range(rows):
        z[i] = numeric[i * columns + feature]
    return z


@inner
def _draw_waves(frequency: Any, z: Any, cosine: Any, sine: Any) -> None:
    for i in range(z.size):
        c, s = cos_sin_of_turns(frequency * z[i])
        cosine[i], sine[i] = c, s


@inner
def _mix_feature(program: Any, layer: Any, weights: Any, numeric: Any, feature: int, x: Any, scratch: Any) -> None:
    rows, count, width = x.shape[0], layer[1], layer[2]
    z = _numbers(program, numeric, feature, rows, scratch)
    cosine, sine = part(scratch, rows, rows), part(scratch, 2 * rows, rows)
    frequencies = part(weights, layer[3] + feature * count, count)
    bias, column = part(weights, layer[5] + feature * width, width), layer[6] + feature * width
    for e in range(width):
        out = part(scratch, (VECTORS + e) * rows, rows)
        for i in range(rows):
            out[i] = bias[e]
    for f in range(count):
        _draw_waves(frequencies[f], z, cosine, sine)
        for e in range(width):
            out, start = part(scratch, (VECTORS + e) * rows, rows), layer[4] + (feature * width + e) * 2 * count + f
            a, b = weights[start], weights[start + count]
            for i in range(rows):
                out[i] += a * cosine[i] + b * sine[i]
    for e in range(width):
        out = part(scratch, (VECTORS + e) * rows, rows)
        for i in range(rows):
            x[i, column + e] = out[i]


@inner
def _feature_backward(program: Any, layer: Any, state: Any, numeric: Any, feature: int, gx: Any, scratch: Any) -> None:
    rows, count, width = gx.shape[0], layer[1], layer[2]
    z = _numbers(program, numeric, feature, rows, scratch)
    cosine, sine = part(scratch, rows, rows), part(scratch, 2 * rows, rows)
    first, column, number = layer[3] + feature * count, layer[6] + feature * width, z.dtype.type
    for e in range(width):
        g, total = part(scratch, (VECTORS + e) * rows, rows), number(0)
        for i in range(rows):
            g[i] = gx[i, column + e]
            total += g[i]
        state.grad[layer[5] + feature * width + e] += total
    for f in range(count):
        _draw_waves(state.weights[first + f], z, cosine, sine)
        pull = number(0)
        for e in range(width):
            g, start = part(scratch, (VECTORS + e) * rows, rows), layer[4] + (feature * width + e) * 2 * count + f
            a, b = state.weights[start], state.weights[start + count]
            along, across, of_a, of_b = number(0), number(0), number(0), number(0)
            for i in range(rows):
                with_cosine, with_sine = g[i] * cosine[i], g[i] * sine[i]
                of_a += with_cosine
                of_b += with_sine
                along += z[i] * with_cosine
                across += z[i] * with_sine
            state.grad[start] += of_a
            state.grad[start + count] += of_b
            pull += b * along - a * across
        state.grad[first + f] += number(2 * math.pi) * pull
