"""Functions of single numbers, without branches, so that loops over them vectorize.

In float32 these are our own polynomials, fitted for an error below 2^-23 of the largest value. In float64, in which
engines are compared to 1e-9, they are the C library's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from poise.kernels.cpu._jit import exact
from poise.kernels.cpu._vector import bits_of_float, float_of_bits, select

_f, _d, _i, _l = np.float32, np.float64, np.int32, np.int64
_LOG2_E = _f(1.44269504)
_LN2_HIGH, _LN2_LOW = _f(0.693359375), _f(-2.12194440e-4)
_ROUND = _f(12582912.0)  # 1.5 · 2^23: adding it rounds to an integer, which then stands in the low bits
_INV_SQRT_TAU = 1 / math.sqrt(2 * math.pi)


@exact
def _exp32(x: Any) -> Any:
    low, high = _f(-87.0), _f(88.0)
    x = select(x < low, low, x)
    x = select(x > high, high, x)
    shifted = x * _LOG2_E + _ROUND
    n = shifted - _ROUND
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    p = _f(1.39295966e-3) + r * _f(1.98948441e-4)
    p = _f(4.16665035e-2) + r * (_f(8.33330405e-3) + r * p)
    p = _f(0.5) + r * (_f(0.166666667) + r * p)
    power = float_of_bits(_i((bits_of_float(shifted) << _i(23)) + _i(0x3F800000)))
    return (_f(1) + (r + r * r * p)) * power


@exact
def _tanh32(x: Any) -> Any:
    size = abs(x)
    z = x * x
    p = _f(0.0210852297) + z * _f(-0.00622088705)
    p = _f(-0.333333303) + z * (_f(0.133329009) + z * (_f(-0.0538701158) + z * p))
    small = x + x * z * p
    e = _exp32(_f(-2) * size)
    large = (_f(1) - e) / (_f(1) + e)
    return select(size < _f(0.6), small, select(x < _f(0), -large, large))


@exact
def _normal_cdf32(x: Any) -> Any:
    # Near 0, 1/2 + x Q(x²). Elsewhere erfc(t) / 2 = s P(s) exp(-t²), s = 1 / (1 + 0.3 t), t = |x| / sqrt(2).
    z = x * x
    q = _f(1.1499941e-4) + z * (_f(-9.03661588e-6) + z * _f(4.7075773e-7))
    q = _f(9.97349366e-3) + z * (_f(-1.18708774e-3) + z * q)
    middle = _f(0.5) + x * (_f(0.39894228) + z * (_f(-0.0664903738) + z * q))
    t = abs(x) * _f(0.707106781)
    s = _f(1) / (_f(1) + _f(0.3) * t)
    p = _f(0.754656651) + s * (_f(-0.336707738) + s * _f(0.0563609902))
    p = _f(-0.294090949) + s * (_f(0.789319707) + s * (_f(-0.856366767) + s * p))
    p = _f(0.167982294) + s * (_f(0.108429704) + s * (_f(0.272496125) + s * p))
    p = _f(0.169283876) + s * (_f(0.168636106) + s * p)
    tail = _f(0.5) * s * p * _exp32(_f(-0.5) * z)
    return select(z < _f(1.5), middle, select(x < _f(0), tail, _f(1) - tail))


@exact
def _sigmoid32(x: Any) -> Any:
    return _f(1) / (_f(1) + _exp32(-x))


@exact
def _normal_pdf32(x: Any) -> Any:
    return _f(_INV_SQRT_TAU) * _exp32(_f(-0.5) * (x * x))


@exact
def _expm1_32(x: Any) -> Any:
    return _exp32(x) - _f(1)


@exact
def _exp64(x: Any) -> Any:
    return math.exp(x)


@exact
def _expm1_64(x: Any) -> Any:
    return math.expm1(x)


@exact
def _tanh64(x: Any) -> Any:
    return math.tanh(x)


@exact
def _sigmoid64(x: Any) -> Any:
    return 1 / (1 + math.exp(-x))


@exact
def _normal_cdf64(x: Any) -> Any:
    return 0.5 * math.erfc(-x * math.sqrt(0.5))


@exact
def _normal_pdf64(x: Any) -> Any:
    return _INV_SQRT_TAU * math.exp(-0.5 * x * x)


@exact
def _cos_sin_of_turns32(turns: Any) -> Any:
    # An eighth of a turn to either side of a quarter; what is left of whole turns and quarters is exact.
    rest = turns - np.rint(turns)
    quarters = np.rint(_f(4) * rest)
    x = (rest - _f(0.25) * quarters) * _f(2 * math.pi)
    z = x * x
    c = _f(4.16666457e-2) + z * (_f(-1.38873163e-3) + z * _f(2.44331571e-5))
    c = _f(1) + z * (_f(-0.5) + z * c)
    s = _f(8.33216087e-3) + z * _f(-1.95152959e-4)
    s = x + x * z * (_f(-0.166666546) + z * s)
    odd = (quarters == _f(1)) | (quarters == _f(-1))
    cosine, sine = select(odd, s, c), select(odd, c, s)
    left, below = (quarters >= _f(1)) | (quarters <= _f(-2)), (quarters < _f(0)) | (quarters >= _f(2))
    return select(left, -cosine, cosine), select(below, -sine, sine)


@exact
def _cos_sin_of_turns64(turns: Any) -> Any:
    angle = _d(2 * math.pi) * (turns - np.rint(turns))
    return math.cos(angle), math.sin(angle)


def _by_type(single: Callable[..., Any], double: Callable[..., Any]) -> Callable[[Any], Any]:
    """A function for machine code that is `single` on float32 and `double` on float64."""

    def function(x: Any) -> Any:
        return double.py_func(x)  # type: ignore[attr-defined]

    @overload(function)
    def choose(x):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 - Numba compares the names of arguments only
        chosen = single if x == types.float32 else double

        def call(x):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
            return chosen(x)

        return call

    return function


exp = _by_type(_exp32, _exp64)
expm1 = _by_type(_expm1_32, _expm1_64)
tanh = _by_type(_tanh32, _tanh64)
sigmoid = _by_type(_sigmoid32, _sigmoid64)
normal_cdf = _by_type(_normal_cdf32, _normal_cdf64)
normal_pdf = _by_type(_normal_pdf32, _normal_pdf64)
cos_sin_of_turns = _by_type(_cos_sin_of_turns32, _cos_sin_of_turns64)  # cos and sin of 2 π x


@exact
def log(x: Any) -> Any:
    """Natural logarithm of a normal float64 x > 0, to 1e-15, by 2 artanh((m - 1) / (m + 1)) of the mantissa m."""
    bits = bits_of_float(x)
    # 0x3FE6A09E667F3BCD are the bits of sqrt(1/2): m lies in [sqrt(1/2), sqrt(2)).
    exponent = (bits - _l(0x3FE6A09E667F3BCD)) >> _l(52)
    m = float_of_bits(bits - (exponent << _l(52)))
    s = (m - _d(1)) / (m + _d(1))
    z = s * s
    p = _d(1 / 15) + z * (_d(1 / 17) + z * (_d(1 / 19) + z * _d(1 / 21)))
    p = _d(1 / 9) + z * (_d(1 / 11) + z * (_d(1 / 13) + z * p))
    p = _d(1) + z * (_d(1 / 3) + z * (_d(1 / 5) + z * (_d(1 / 7) + z * p)))
    return _d(2) * s * p + _d(exponent) * _d(0.6931471805599453)


@exact
def log_of_uniform(word: Any) -> Any:
    """log((word + 1/2) · 2^-32) for a 32-bit word."""
    return log((_d(word) + _d(0.5)) * _d(2.0**-32))


@exact
def cos_sin_of_turn(word: Any) -> Any:
    """cos and sin of 2 π (word + 1/2) · 2^-32 for a 32-bit word, to 1e-13, by Taylor series in an eighth of a turn."""
    quadrant = (_l(word) + _l(0x20000000)) >> _l(30)
    x = (_d(_l(word) - (quadrant << _l(30))) + _d(0.5)) * _d(2 * math.pi * 2.0**-32)
    z = x * x
    c = _d(-1 / 3628800) + z * (_d(1 / 479001600) + z * _d(-1 / 87178291200))
    c = _d(1) + z * (_d(-1 / 2) + z * (_d(1 / 24) + z * (_d(-1 / 720) + z * (_d(1 / 40320) + z * c))))
    s = _d(-1 / 39916800) + z * _d(1 / 6227020800)
    s = x * (_d(1) + z * (_d(-1 / 6) + z * (_d(1 / 120) + z * (_d(-1 / 5040) + z * (_d(1 / 362880) + z * s)))))
    odd = (quadrant & _l(1)) == _l(1)
    cosine, sine = select(odd, s, c), select(odd, c, s)
    left, below = ((quadrant + _l(1)) & _l(2)) == _l(2), (quadrant & _l(2)) == _l(2)
    return select(left, -cosine, cosine), select(below, -sine, sine)
