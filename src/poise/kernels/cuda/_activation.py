"""Nonlinearities and their slopes, with torch's formulas and settings; NaN stays NaN."""

from __future__ import annotations

import triton.language as tl
from triton.language import constexpr, tensor

from poise.kernels.cuda._jit import kernel


@kernel
def activate(u: tensor, activation: constexpr) -> tensor:
    """act(u)."""
    if activation == "relu":
        y = tl.where(u <= 0, 0.0, u)
    elif activation == "leaky_relu":
        y = tl.where(u <= 0, 0.01 * u, u)
    elif activation == "gelu":
        y = u * _normal_cdf(u)
    elif activation == "silu":
        y = u * _sigmoid(u)
    elif activation == "selu":
        bent = 1.7580993408473768599402175208123 * _expm1(tl.minimum(u, 0.0))
        y = tl.where(u <= 0, bent, 1.0507009873554804934193349852946 * u)
    elif activation == "tanh":
        y = _tanh(u)
    elif activation == "mish":
        e = tl.exp(tl.minimum(u, 20.0))  # beyond it mish(u) = u in every float, and e² would not overflow yet
        n = e * (e + 2.0)
        y = u * (n / (n + 2.0))
    else:
        tl.static_assert(activation == "identity")
        y = u
    return y


@kernel
def slope_of(u: tensor, activation: constexpr) -> tensor:
    """act'(u); as in torch, the slope at a kink is that of its left side."""
    one = tl.full(u.shape, 1.0, u.dtype)  # two plain numbers would make float32, whatever u is
    if activation == "relu":
        slope = tl.where(u <= 0, 0.0, one)
    elif activation == "leaky_relu":
        slope = tl.where(u <= 0, 0.01, one)
    elif activation == "gelu":
        slope = _normal_cdf(u) + u * (0.3989422804014327 * tl.exp(-0.5 * u * u))
    elif activation == "silu":
        s = _sigmoid(u)
        slope = s * (1.0 + u * (1.0 - s))
    elif activation == "selu":
        bent = 1.7580993408473768599402175208123 * tl.exp(tl.minimum(u, 0.0))
        slope = tl.where(u <= 0, bent, 1.0507009873554804934193349852946)
    elif activation == "tanh":
        t = _tanh(u)
        slope = 1.0 - t * t
    elif activation == "mish":
        e = tl.exp(tl.minimum(u, 20.0))
        n = e * (e + 2.0)
        # tanh(softplus(u)) = n / (n + 2), and its derivative is 4 e (e + 1) / (n + 2)².
        slope = n / (n + 2.0) + u * (4.0 * e * (e + 1.0) / ((n + 2.0) * (n + 2.0)))
    else:
        tl.static_assert(activation == "identity")
        slope = one
    return slope


@kernel
def _normal_cdf(u: tensor) -> tensor:
    return 0.5 * (1.0 + tl.erf(u * 0.7071067811865476))


@kernel
def _sigmoid(u: tensor) -> tensor:
    return 1.0 / (1.0 + tl.exp(-u))


@kernel
def _expm1(u: tensor) -> tensor:
    """exp(u) - 1 without cancellation for u ≤ 0, by Kahan: the error of e = exp(u) cancels in (e - 1) / log(e)."""
    e = tl.exp(u)
    exact = (e < 0.5) | (e == 1.0)
    near = (e - 1.0) * (u / tl.log(tl.where(exact, 0.5, e)))
    return tl.where(e == 1.0, u, tl.where(e < 0.5, e - 1.0, near))


@kernel
def _tanh(u: tensor) -> tensor:
    e = _expm1(-2.0 * tl.abs(u))
    size = -e / (2.0 + e)
    return tl.where(u < 0, -size, size)
