"""Products with piecewise-linear encoded numbers against the encoding and torch's products."""

import numpy as np
import pytest
import torch

from poise.kernels.cpu import _pieces
from poise.nn import PiecewiseLinear

from ._called import called

find_pieces, tabulate = called(_pieces.find_pieces), called(_pieces.tabulate)
add_pieces, pieces_backward = called(_pieces.add_pieces), called(_pieces.pieces_backward)
GUARD = -777.0
SHAPES = [(1, 1, 1, 1), (5, 1, 2, 3), (7, 3, 4, 16), (33, 2, 16, 40), (64, 5, 8, 64), (40, 3, 5, 130)]


def draw(rows, features, bins, dtype):
    """Numbers within, on and beyond the edges, in the first of a few columns."""
    rng = np.random.default_rng(rows)
    edges = np.sort(rng.normal(size=(features, bins + 1)), axis=1).astype(dtype)
    numeric = rng.normal(size=(rows, features + 2)).astype(dtype)
    on_edge = rng.integers(0, bins + 1, (rows, features))
    numeric[::3, :features] = np.take_along_axis(edges, on_edge.T, axis=1).T[::3]
    layer = PiecewiseLinear(torch.from_numpy(edges))
    encoded = layer(torch.from_numpy(numeric[:, :features])).double().numpy()
    pieces, shares = np.zeros(rows * features + 3, np.int64), np.full(rows * features + 3, GUARD, dtype)
    find_pieces(numeric.ravel(), features + 2, rows, layer.start.numpy().copy(), layer.slope.numpy(), pieces, shares)
    assert (shares[rows * features :] == GUARD).all()
    return encoded, pieces, shares


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("dtype", "close"), [(np.float32, 1e-5), (np.float64, 1e-13)])
def test_products_are_those_of_the_encoding(shape, dtype, close):
    rows, features, bins, width = shape
    encoded, pieces, shares = draw(rows, features, bins, dtype)
    weight, before = (np.random.default_rng(1).normal(size=(n, width)).astype(dtype) for n in (features * bins, rows))
    table = np.full((features * bins, 2, width), GUARD, dtype)
    table[:, 1] = weight
    tabulate(table.reshape(-1), features, bins, width)
    np.testing.assert_array_equal(table[:, 1], weight)
    y = np.append(before.ravel(), [GUARD] * 5).astype(dtype)
    add_pieces(table.reshape(-1), pieces, shares, rows, features, width, y)
    expected = before.astype(np.float64) + encoded @ weight.astype(np.float64)
    np.testing.assert_allclose(y[:-5].reshape(rows, width), expected, rtol=close, atol=close * np.abs(expected).max())
    assert (y[-5:] == GUARD).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("dtype", "close"), [(np.float32, 1e-5), (np.float64, 1e-13)])
def test_gradients_are_those_of_the_encoding(shape, dtype, close):
    rows, features, bins, width = shape
    encoded, pieces, shares = draw(rows, features, bins, dtype)
    g = np.random.default_rng(2).normal(size=(rows, width)).astype(dtype)
    out = np.full(features * bins * width + 5, GUARD, dtype)
    order, spare = np.zeros(rows, np.int64), np.full(width + 5, GUARD, dtype)
    pieces_backward(g.ravel(), pieces, shares, rows, features, bins, width, order, spare, out)
    expected = encoded.T @ g.astype(np.float64)
    np.testing.assert_allclose(out[:-5].reshape(-1, width), expected, rtol=close, atol=close * np.abs(expected).max())
    assert (out[-5:] == GUARD).all()
    assert (spare[width:] == GUARD).all()


def test_what_is_not_a_number_stays_what_it_is():
    layer = PiecewiseLinear(torch.tensor([[0.0, 1.0, 2.0]]))
    numeric, pieces, shares = np.array([np.nan, -np.inf, np.inf], np.float32), np.zeros(3, np.int64), np.zeros(3, "f4")
    find_pieces(numeric, 1, 3, layer.start.numpy().copy(), layer.slope.numpy(), pieces, shares)
    assert pieces.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(shares, numeric)
