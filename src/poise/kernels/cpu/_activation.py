"""Nonlinearities in place, on flat vectors, and by a learned part on matrices."""

from __future__ import annotations

from typing import Any

from poise.kernels.cpu._jit import inner
from poise.kernels.cpu._math import exp, expm1, normal_cdf, normal_pdf, sigmoid, tanh
from poise.kernels.cpu._vector import select
from poise.kernels.cpu._view import part

IDENTITY, RELU, LEAKY_RELU, GELU, SILU, SELU, TANH, MISH = range(8)
CODES = {
    "identity": IDENTITY,
    "relu": RELU,
    "leaky_relu": LEAKY_RELU,
    "gelu": GELU,
    "silu": SILU,
    "selu": SELU,
    "tanh": TANH,
    "mish": MISH,
}

_SLOPE = 0.01
_SCALE, _SCALED_ALPHA = 1.0507009873554804934193349852946, 1.7580993408473768599402175208123
_MISH_LINEAR = 20.0  # beyond it mish(x) = x in every float, and exp(x)² would not overflow yet


@inner
def activate(code: int, y: Any) -> None:
    """y ← act(y)."""
    number = y.dtype.type
    zero, one = number(0), number(1)
    if code == RELU:
        for i in range(y.size):
            y[i] = select(y[i] <= zero, zero, y[i])
    elif code == LEAKY_RELU:
        slope = number(_SLOPE)
        for i in range(y.size):
            y[i] = select(y[i] <= zero, slope * y[i], y[i])
    elif code == GELU:
        for i in range(y.size):
            y[i] *= normal_cdf(y[i])
    elif code == SILU:
        for i in range(y.size):
            y[i] *= sigmoid(y[i])
    elif code == SELU:
        scale, bent = number(_SCALE), number(_SCALED_ALPHA)
        for i in range(y.size):
            y[i] = select(y[i] <= zero, bent * expm1(select(y[i] <= zero, y[i], zero)), scale * y[i])
    elif code == TANH:
        for i in range(y.size):
            y[i] = tanh(y[i])
    elif code == MISH:
        bound = number(_MISH_LINEAR)
        for i in range(y.size):
            e = exp(select(y[i] > bound, bound, y[i]))
            n = e * (e + number(2))
            y[i] *= n / (n + number(2))
    elif code != IDENTITY:
        y[:] = one / zero  # an unknown code must not pass for a network that trains


@inner
def activate_backward(code: int, u: Any, g: Any) -> None:
    """g ← g · act'(u)."""
    number = g.dtype.type
    zero, one = number(0), number(1)
    if code == RELU:
        for i in range(g.size):
            g[i] = select(u[i] <= zero, zero, g[i])
    elif code == LEAKY_RELU:
        slope = number(_SLOPE)
        for i in range(g.size):
            g[i] = select(u[i] <= zero, slope * g[i], g[i])
    elif code == GELU:
        for i in range(g.size):
            g[i] *= normal_cdf(u[i]) + u[i] * normal_pdf(u[i])
    elif code == SILU:
        for i in range(g.size):
            s = sigmoid(u[i])
            g[i] *= s * (one + u[i] * (one - s))
    elif code == SELU:
        scale, bent = number(_SCALE), number(_SCALED_ALPHA)
        for i in range(g.size):
            g[i] *= select(u[i] <= zero, bent * exp(select(u[i] <= zero, u[i], zero)), scale)
    elif code == TANH:
        for i in range(g.size):
            t = tanh(u[i])
            g[i] *= one - t * t
    elif code == MISH:
        bound, two, four = number(_MISH_LINEAR), number(2), number(4)
        for i in range(g.size):
            v = select(u[i] > bound, bound, u[i])
            e = exp(v)
            n = e * (e + two)
            # tanh(softplus(u)) = n / (n + 2), and its derivative is 4 e (e + 1) / (n + 2)².
            g[i] *= n / (n + two) + v * (four * e * (e + one) / ((n + two) * (n + two)))


@inner
def activate_in_part(code: int, y: Any, weight: Any, rate: float, spare: Any) -> None:
    """y_j ← y_j + α_j (act(y_j) - y_j), α_j = 1 + rate · weight_j, by rows; `spare` holds a row."""
    rows, width = y.shape
    one, factor, bent = y.dtype.type(1), y.dtype.type(rate), part(spare, 0, width)
    for r in range(rows):
        row = part(y, r * width, width)
        for j in range(width):
            bent[j] = row[j]
        activate(code, bent)
        for j in range(width):
            row[j] += (one + factor * weight[j]) * (bent[j] - row[j])


@inner
def activate_in_part_backward(
    code: int, u: Any, g: Any, weight: Any, rate: float, weight_grad: Any, spare: Any
) -> None:
    """g ← the gradient of u; adds to that of the weight; `spare` holds two rows."""
    rows, width = g.shape
    one, factor = g.dtype.type(1), g.dtype.type(rate)
    bent, slope = part(spare, 0, width), part(spare, width, width)
    for r in range(rows):
        row, grad = part(u, r * width, width), part(g, r * width, width)
        for j in range(width):
            bent[j] = row[j]
        activate(code, bent)
        for j in range(width):
            weight_grad[j] += factor * grad[j] * (bent[j] - row[j])
            slope[j] = (one + factor * weight[j]) * grad[j]
        activate_backward(code, row, slope)
        for j in range(width):
            grad[j] = slope[j] - factor * weight[j] * grad[j]
