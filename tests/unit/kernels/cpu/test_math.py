"""Functions of single numbers against float64 over all of float32, and where there is no number."""

import math

import numpy as np
import pytest
from scipy import special, stats

from poise.kernels.cpu import _math
from poise.kernels.cpu._jit import inner

from ._called import called

TRUTH = {
    "exp": np.exp,
    "expm1": np.expm1,
    "tanh": np.tanh,
    "sigmoid": special.expit,
    "normal_cdf": special.ndtr,
    "normal_pdf": stats.norm.pdf,
}
EXP_LOW, EXP_HIGH = -87.0, 88.0  # beyond them, float32's exp stays where it is: its neighbors are subnormal or infinite
# Relative error, and for those that cross zero or lose digits in their tails, error over the largest value, 1.
RELATIVE = {"exp": 1e-7, "tanh": 1.6e-7, "sigmoid": 1.6e-7}
ABSOLUTE = {"expm1": 1.2e-7, "tanh": 1.2e-7, "sigmoid": 1.2e-7, "normal_cdf": 1e-7, "normal_pdf": 1e-7}
SMALLEST = float(np.finfo(np.float32).smallest_normal)


def mapped(function):
    """`function` on arrays, compiled as the kernels compile it."""

    @called
    @inner
    def loop(x, y):
        for i in range(x.size):
            y[i] = function(x[i])

    def call(x):
        y = np.empty(x.size, np.float64 if x.dtype.kind == "u" else x.dtype)
        loop(x, y)
        return y

    return call


FUNCTIONS = {name: mapped(getattr(_math, name)) for name in TRUTH}


@pytest.fixture(scope="module")
def all_of_float32():
    """A million bit patterns, so all signs and exponents, subnormal ones too, and a fine grid where functions bend."""
    patterns = np.linspace(0, 2**32 - 1, 1_000_000).astype(np.uint32).view(np.float32)
    grid = np.linspace(-100, 100, 1_000_001).astype(np.float32)
    return np.concatenate((patterns[np.isfinite(patterns)], grid, grid / 100))


def exact_value(name, x):
    x = x.astype(np.float64)
    with np.errstate(over="ignore", under="ignore"):
        return TRUTH[name](np.clip(x, EXP_LOW, EXP_HIGH) if name in ("exp", "expm1") else x)


@pytest.mark.parametrize("name", TRUTH)
def test_float32_keeps_its_stated_error(name, all_of_float32):
    found, expected = FUNCTIONS[name](all_of_float32).astype(np.float64), exact_value(name, all_of_float32)
    error = np.abs(found - expected)
    if name in RELATIVE:
        normal = np.abs(expected) >= SMALLEST
        assert (error[normal] / np.abs(expected[normal])).max() < RELATIVE[name]
        assert error[~normal].max(initial=0) < SMALLEST
    if name in ABSOLUTE:
        bounded = np.abs(expected) <= 1
        assert error[bounded].max() < ABSOLUTE[name]
    if name == "expm1":
        assert (error[expected > 1] / expected[expected > 1]).max() < 2.5e-7  # that of exp is doubled at exp(x) = 2


@pytest.mark.parametrize(("name", "bound"), [("normal_cdf", 1.5e-6), ("normal_pdf", 1.5e-6)])
def test_tails_of_the_normal_law_keep_their_digits(name, bound):
    """An error of 1e-7 of the largest value would be all of a tail. Rounding x²/2 = 18 alone costs 1e-6."""
    x = np.linspace(-6, 6, 100_001).astype(np.float32)
    expected = exact_value(name, x)
    assert (np.abs(FUNCTIONS[name](x) - expected) / expected).max() < bound


@pytest.mark.parametrize("name", TRUTH)
def test_float64_is_the_libraries(name):
    x = np.concatenate((np.linspace(-40, 40, 100_001), [-700.0, 700.0, 1e-300, -1e-300, 5e-324, 0.0, -0.0]))
    x = x[np.abs(x) < 700] if name == "exp" else x
    expected = exact_value(name, x) if name not in ("exp", "expm1") else TRUTH[name](x)
    np.testing.assert_allclose(FUNCTIONS[name](x), expected, rtol=1e-13, atol=1e-300)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", TRUTH)
def test_values_that_are_no_numbers_and_those_at_the_edge(name, dtype):
    infinite, huge = np.inf, float(np.finfo(dtype).max)
    x = np.array([np.nan, infinite, huge, -infinite, -huge, -0.0, 0.0, np.finfo(dtype).smallest_subnormal], dtype)
    found = FUNCTIONS[name](x)
    assert np.isnan(found[0])
    assert not np.isnan(found[1:]).any()
    high, low = {
        "exp": (math.exp(EXP_HIGH), 0.0),
        "expm1": (math.exp(EXP_HIGH), -1.0),
        "tanh": (1.0, -1.0),
        "sigmoid": (1.0, 0.0),
        "normal_cdf": (1.0, 0.0),
        "normal_pdf": (0.0, 0.0),
    }[name]
    if name in ("exp", "expm1"):  # as large as can be, or infinite
        assert (found[1:3] >= high * (1 - 1e-6)).all()
    else:
        np.testing.assert_allclose(found[1:3], high, atol=2 * SMALLEST)
    np.testing.assert_allclose(found[3:5], low, atol=2 * SMALLEST)
    middle = {"exp": 1.0, "expm1": 0.0, "tanh": 0.0, "sigmoid": 0.5, "normal_cdf": 0.5}.get(
        name, 1 / math.sqrt(math.tau)
    )
    np.testing.assert_allclose(found[5:], middle, rtol=1.2e-7, atol=2 * SMALLEST)


def test_python_gets_the_float64_function():
    assert [_math.exp(1.0), _math.tanh(0.3)] == [math.exp(1.0), math.tanh(0.3)]


def test_log_of_normal_numbers():
    x = np.concatenate((np.exp(np.linspace(-708, 709, 200_001)), 1 + np.linspace(-1e-3, 1e-3, 20_001)))
    x = np.append(
        x, [np.finfo(np.float64).smallest_normal, np.finfo(np.float64).max, 1.0, math.sqrt(0.5), math.sqrt(2)]
    )
    np.testing.assert_allclose(mapped(_math.log)(x), np.log(x), rtol=1e-15, atol=1e-18)


WORDS = np.concatenate(
    (
        np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint32),
        np.array([n * 2**29 + d for n in range(8) for d in (0, 1)], dtype=np.uint32),  # where eighths of a turn meet
        np.array([n * 2**29 - 1 for n in range(1, 9)], dtype=np.uint32),
    )
)


def test_log_of_a_uniform_word():
    expected = np.log((WORDS.astype(np.float64) + 0.5) / 2**32)
    np.testing.assert_allclose(mapped(_math.log_of_uniform)(WORDS), expected, rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize(("index", "expected"), [(0, np.cos), (1, np.sin)])
def test_cosine_and_sine_of_a_turn(index, expected):
    turn = _math.cos_sin_of_turn

    @called
    @inner
    def loop(words, out):
        for i in range(words.size):
            out[i] = turn(words[i])[index]

    found = np.empty(WORDS.size)
    loop(WORDS, found)
    np.testing.assert_allclose(found, expected((WORDS.astype(np.float64) + 0.5) * (math.tau / 2**32)), atol=1e-13)


EIGHTHS = np.arange(-80_000, 80_001) / 8  # where the signs and the two series change
TURNS = np.concatenate((np.linspace(-1e4, 1e4, 500_001), np.linspace(-2, 2, 500_001), EIGHTHS))


@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 1e-7), (np.float64, 1e-12)])
@pytest.mark.parametrize(("index", "expected"), [(0, np.cos), (1, np.sin)])
def test_cosine_and_sine_of_any_number_of_turns(index, expected, dtype, bound):
    turns = _math.cos_sin_of_turns
    x = TURNS.astype(dtype)

    @called
    @inner
    def loop(x, out):
        for i in range(x.size):
            out[i] = turns(x[i])[index]

    found = np.empty_like(x)
    loop(x, found)
    wide = x.astype(np.longdouble)
    assert np.abs(found - expected(2 * np.pi * (wide - np.rint(wide)).astype(np.float64))).max() < bound
    edge = np.array([np.nan, np.inf, -np.inf, np.finfo(dtype).max, 0.0], dtype)
    ends = np.empty_like(edge)
    loop(edge, ends)
    assert np.isnan(ends[:3]).all()
    np.testing.assert_array_equal(ends[3:], expected([0.0, 0.0]))
