"""Networks on encoded tables, whatever kinds of columns there are."""

import pytest
import torch

from poise._random import Key
from poise.data import Inputs
from poise.nn import MLP, Structure, TabularNetwork, TabularShape

STRUCTURE = Structure(width=6, depth=1)
BINS = torch.tensor([[0.0, 1.0, 2.0], [0.0, 5.0, 6.0]])
SHAPES = {
    "numbers": TabularShape(2, 3),
    "categories": TabularShape(0, 0, (4, 9)),
    "both": TabularShape(2, 3, (4, 9)),
    "bins": TabularShape(2, 3, (4, 9), bins=BINS),
    "bins, no indicators": TabularShape(2, 2, bins=BINS),
    "nothing": TabularShape(0, 0),
}


def make_inputs(shape, rows=5):
    generator = torch.Generator().manual_seed(0)
    numeric = torch.randn(rows, shape.num_numeric, generator=generator)
    codes = [torch.randint(size, (rows, 1), generator=generator) for size in shape.cardinalities]
    empty = torch.zeros(rows, 0, dtype=torch.int64)
    return Inputs(numeric, torch.cat(codes, dim=1) if codes else empty)


@pytest.mark.parametrize(("name", "width"), list(zip(SHAPES, (3, 7, 10, 12, 4, 0), strict=True)))
def test_width_of_what_the_perceptron_reads(name, width):
    network = TabularNetwork(SHAPES[name], 2, structure=STRUCTURE, key=Key(0))
    assert network.mlp.block0.linear.in_features == width
    assert network(make_inputs(SHAPES[name])).shape == (5, 2)
    assert network(make_inputs(SHAPES[name], rows=1)).shape == (1, 2)


def test_numbers_then_indicators_then_categories():
    network = TabularNetwork(SHAPES["bins"], 2, structure=STRUCTURE, key=Key(0))
    inputs = make_inputs(SHAPES["bins"])
    numbers = network.numbers(inputs.numeric[:, :2])
    read = torch.cat([numbers, inputs.numeric[:, 2:], network.categories(inputs.categorical)], dim=1)
    torch.testing.assert_close(network(inputs), network.mlp(read))


def test_without_categories_it_is_the_perceptron():
    network = TabularNetwork(SHAPES["numbers"], 2, structure=STRUCTURE, key=Key(4))
    plain = MLP(3, 2, structure=STRUCTURE, key=Key(4).stream("mlp"))
    inputs = make_inputs(SHAPES["numbers"])
    assert torch.equal(network(inputs), plain(inputs.numeric))


def test_embedding_dim_bounds_the_vectors():
    network = TabularNetwork(TabularShape(0, 0, (100, 3), embedding_dim=4), 1, structure=STRUCTURE)
    assert [table.embedding_dim for table in network.categories.tables] == [4, 2]


def test_gradients_reach_every_parameter():
    network = TabularNetwork(SHAPES["bins"], 2, structure=Structure(width=6, activation="silu"), key=Key(0))
    network(make_inputs(SHAPES["bins"], rows=50)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_global_random_numbers_are_untouched_when_a_key_is_given():
    state = torch.random.get_rng_state()
    TabularNetwork(SHAPES["both"], 2, structure=STRUCTURE, key=Key(0))
    assert torch.equal(state, torch.random.get_rng_state())
    TabularNetwork(SHAPES["both"], 2, structure=STRUCTURE)
    assert not torch.equal(state, torch.random.get_rng_state())
