"""Encodings of numbers and categories."""

import math

import numpy as np
import pytest
import torch

from poise._errors import ConfigError
from poise._random import Key
from poise.nn import CategoricalEmbedding, PiecewiseLinear

BINS = torch.tensor([[-1.0, 0.0, 2.0, 2.5], [0.0, 10.0, 11.0, 100.0]], dtype=torch.float64)


def loop(x, bins):
    """The definition of Gorishniy et al., equation 1, one number at a time."""
    rows = []
    for row in x:
        cells = []
        for value, edges in zip(row, bins, strict=True):
            num = len(edges) - 1
            for t in range(num):
                part = (value - edges[t]) / (edges[t + 1] - edges[t])
                part = max(part, 0.0) if t > 0 else part
                cells.append(min(part, 1.0) if t < num - 1 else part)
        rows.append(cells)
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("num_bins", [1, 2, 3])
def test_piecewise_linear_equals_a_plain_loop(num_bins):
    bins = BINS[:, : num_bins + 1]
    rng = np.random.default_rng(0)
    x = np.vstack([rng.normal(scale=20, size=(40, 2)), BINS.T.numpy(), [[-1e6, 1e6]]])
    out = PiecewiseLinear(bins).double()(torch.from_numpy(x))
    torch.testing.assert_close(out, loop(x.tolist(), bins.tolist()), rtol=1e-6, atol=1e-6)  # edges are kept in float32


def test_piecewise_linear_is_linear_beyond_the_outer_edges():
    layer = PiecewiseLinear(torch.tensor([[0.0, 1.0, 3.0]]))
    assert layer(torch.tensor([[-2.0], [7.0]])).tolist() == [[-2.0, 0.0], [1.0, 3.0]]


def test_piecewise_linear_gradient_and_state():
    layer = PiecewiseLinear(BINS).double()
    assert torch.autograd.gradcheck(layer, torch.tensor([[-3.0, 10.5], [1.3, 200.0]]).double().requires_grad_())
    assert layer.state_dict() == {}
    assert list(layer.parameters()) == []


@pytest.mark.parametrize("edges", [[[0.0, 0.0]], [[1.0, 0.0]], [[0.0, math.nan]]])
def test_edges_must_increase(edges):
    with pytest.raises(ConfigError, match="`bins` must increase"):
        PiecewiseLinear(torch.tensor(edges))


def test_sizes_of_vectors():
    layer = CategoricalEmbedding((1, 2, 3, 7, 1000), max_dim=5, key=Key(0))
    assert [table.embedding_dim for table in layer.tables] == [1, 1, 2, 4, 5]
    assert layer.out_features == 13
    assert layer(torch.zeros(3, 5, dtype=torch.int64)).shape == (3, 13)


def test_initial_vectors_are_named_and_have_length_one_on_average():
    layer = CategoricalEmbedding((5000, 5000), max_dim=8, key=Key(0))
    first, second = (table.weight.detach() for table in layer.tables)
    assert float(first.square().sum(1).mean()) == pytest.approx(1, abs=0.03)
    assert abs(float(np.corrcoef(first.flatten(), second.flatten())[0, 1])) < 0.025
    again = CategoricalEmbedding((5000, 7), max_dim=8, key=Key(0))
    assert torch.equal(again.tables[0].weight, layer.tables[0].weight)


def test_the_vector_of_unknown_categories_begins_as_zero():
    layer = CategoricalEmbedding((4, 9), max_dim=3, key=Key(0))
    assert torch.equal(layer(torch.zeros(1, 2, dtype=torch.int64)), torch.zeros(1, 5))
    assert layer(torch.ones(1, 2, dtype=torch.int64)).ne(0).all()


def test_gradient_reaches_only_the_rows_that_are_read():
    layer = CategoricalEmbedding((6,), key=Key(0))
    layer(torch.tensor([[2], [2], [5]])).sum().backward()
    assert layer.tables[0].weight.grad[:, 0].tolist() == [0, 0, 2, 0, 0, 1]


def test_global_random_numbers_are_untouched_when_a_key_is_given():
    state = torch.random.get_rng_state()
    CategoricalEmbedding((4, 4), key=Key(0))
    assert torch.equal(state, torch.random.get_rng_state())
