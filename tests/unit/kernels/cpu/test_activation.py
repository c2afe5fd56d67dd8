"""Nonlinearities against torch and its autograd, in both dtypes, in place and nowhere else."""

import numpy as np
import pytest
import torch

from poise.kernels.cpu import _activation
from poise.kernels.cpu._activation import CODES
from poise.nn import ACTIVATIONS

from ._called import called

activate, activate_backward = called(_activation.activate), called(_activation.activate_backward)

DTYPES = (np.float32, np.float64)
GUARD = 123.0
# Error over max(1, |x|). In float32 a few roundings; in float64 there is nothing but the order of operations.
BOUNDS = {np.float32: 6e-7, np.float64: 4e-15}


def grid(dtype):
    """Both tails, zero, kinks and where one formula takes over from another."""
    numbers = [0.0, -0.0, 0.6, -0.6, 20.0, -20.0, 87.0, -87.0, 88.0, -88.0, 1e4, -1e4, 1e15, -1e15]
    numbers += [np.finfo(dtype).smallest_subnormal, -np.finfo(dtype).smallest_subnormal, 1e-30, -1e-30]
    numbers += [np.sqrt(1.5), -np.sqrt(1.5)]
    found = [np.linspace(-30, 30, 4001), np.linspace(-2, 2, 4001), numbers, np.nextafter(numbers, np.inf)]
    return np.concatenate(found).astype(dtype)


def torch_values(name, x):
    """act(x) and act'(x) in float64."""
    z = torch.from_numpy(x.astype(np.float64)).requires_grad_()
    y = ACTIVATIONS[name]()(z)
    (slope,) = torch.autograd.grad(y.sum(), z)
    return y.detach().numpy(), slope.numpy()


def test_every_activation_of_a_network_has_a_code():
    assert set(CODES) == set(ACTIVATIONS)
    assert sorted(CODES.values()) == list(range(len(CODES)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CODES)
def test_values_are_those_of_torch(name, dtype):
    x = grid(dtype)
    found = x.copy()
    activate(CODES[name], found)
    expected, _ = torch_values(name, x)
    assert (np.abs(found - expected) / np.maximum(1, np.abs(x))).max() < BOUNDS[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CODES)
def test_gradients_are_those_of_autograd(name, dtype):
    x = grid(dtype)
    g = np.random.default_rng(0).normal(size=x.size).astype(dtype)
    found, before = g.copy(), x.copy()
    activate_backward(CODES[name], x, found)
    _, slope = torch_values(name, x)
    error = np.abs(found - g * slope) / np.maximum(1, np.abs(g))
    # x · φ(x) and its like take the error of exp times x.
    assert (error / np.maximum(1, np.minimum(np.abs(x), 10))).max() < BOUNDS[dtype]
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CODES)
def test_what_is_no_number_stays_none(name, dtype):
    y, g = np.array([1.0, np.nan, -1.0], dtype), np.ones(3, dtype)
    u = y.copy()
    activate(CODES[name], y)
    assert np.isnan(y).tolist() == [False, True, False]
    if name in ("relu", "leaky_relu", "selu", "identity"):
        g[1] = np.nan  # u decides on which side it is only; the gradient that comes from above carries the news
    activate_backward(CODES[name], u, g)
    assert np.isnan(g).tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CODES)
def test_infinity_does_not_become_an_ordinary_number(name, dtype):
    y = np.array([np.inf, -np.inf], dtype)
    activate(CODES[name], y)
    high, low = {"tanh": (1, -1), "relu": (np.inf, 0), "selu": (np.inf, -1.7580993408473766)}.get(name, (np.inf, None))
    assert y[0] == high
    if low is None:
        assert not np.isfinite(y[1]) or name in ("gelu", "silu", "mish")
    else:
        assert y[1] == pytest.approx(low, rel=1e-6)


@pytest.mark.parametrize("name", CODES)
def test_only_the_given_vector_changes(name):
    for size in (0, 1, 15, 16, 17, 33):
        y, g = np.full(size + 20, GUARD, np.float32), np.full(size + 20, GUARD, np.float32)
        y[10 : 10 + size], g[10 : 10 + size] = -0.5, 1.0
        activate_backward(CODES[name], y[10 : 10 + size], g[10 : 10 + size])
        activate(CODES[name], y[10 : 10 + size])
        for one in (y, g):
            assert (one[:10] == GUARD).all()
            assert (one[10 + size :] == GUARD).all()
            assert len(set(one[10 : 10 + size])) <= 1  # edges of vectors get what the middle gets


def test_an_unknown_code_cannot_pass_for_a_network_that_trains():
    y = np.zeros(3, np.float32)
    activate(len(CODES), y)
    assert not np.isfinite(y).any()
