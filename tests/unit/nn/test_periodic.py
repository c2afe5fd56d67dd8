"""Waves of numbers: the formula, whole turns, gradients, initial weights."""

import math

import pytest
import torch

from poise._random import Key
from poise.data import Inputs
from poise.nn import PeriodicEmbedding, Structure, TabularNetwork, TabularShape


def make(num_features=3, **settings):
    settings = {"num_frequencies": 4, "out_features": 2, "scale": 0.8, "key": Key(0), **settings}
    return PeriodicEmbedding(num_features, **settings).double()


def make_rows(rows=7, columns=3, scale=1.0):
    return scale * torch.randn(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def loop(layer, x):
    """The definition, one number at a time."""
    frequencies, weight, bias = (one.detach().tolist() for one in (layer.frequencies, layer.weight, layer.bias))
    out = []
    for row in x.tolist():
        cells = []
        for d, value in enumerate(row):
            angles = [2 * math.pi * c * value for c in frequencies[d]]
            waves = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
            for start, own in zip(bias[d], weight[d], strict=True):
                cells.append(start + sum(w * v for w, v in zip(own, waves, strict=True)))
        out.append(cells)
    return torch.tensor(out, dtype=torch.float64)


@pytest.mark.parametrize("scale", [0.0, 1.0, 50.0])
def test_equals_a_plain_loop(scale):
    layer, x = make(), make_rows(scale=scale)
    torch.testing.assert_close(layer(x), loop(layer, x), rtol=0, atol=1e-11)


def test_many_turns_keep_their_digits_in_float32():
    """The product of 1,000.25 and 1 is exact; its angle in radians would not be."""
    layer = make(1, num_frequencies=1, out_features=1)
    with torch.no_grad():
        layer.frequencies.fill_(1.0)
    x = torch.tensor([[1000.25], [-4096.125]], dtype=torch.float64)
    expected = layer(x)
    torch.testing.assert_close(layer.float()(x.float()).double(), expected, rtol=0, atol=1e-6)


def test_gradients():
    layer, x = make(), make_rows().requires_grad_()
    names, values = zip(*layer.named_parameters(), strict=True)

    def outputs(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(outputs, (x, *values))


def test_initial_weights_are_named_and_of_the_stated_size():
    layer = PeriodicEmbedding(200, num_frequencies=50, out_features=3, scale=0.3, key=Key(0))
    assert float(layer.frequencies.detach().std()) == pytest.approx(0.3, rel=0.03)
    assert float(layer.frequencies.detach().mean()) == pytest.approx(0, abs=0.01)
    for one in (layer.weight, layer.bias):
        assert float(one.detach().abs().max()) == pytest.approx(0.1, rel=0.03)
    again, other = (PeriodicEmbedding(200, num_frequencies=50, scale=0.3, key=Key(seed)) for seed in (0, 1))
    assert torch.equal(layer.weight, again.weight)
    assert not torch.equal(layer.frequencies, other.frequencies)


def test_a_network_reads_numbers_then_indicators_then_waves_then_categories():
    shape = TabularShape(2, 3, (4, 9), num_frequencies=4, periodic_dim=2)
    network = TabularNetwork(shape, 2, structure=Structure(width=6, depth=1), key=Key(0))
    numeric, codes = make_rows(5).float(), torch.tensor([[1, 2]] * 5)
    read = torch.cat([numeric, network.periodic(numeric[:, :2]), network.categories(codes)], dim=1)
    assert read.shape == (5, 3 + 2 * 2 + 2 + 5)
    torch.testing.assert_close(network(Inputs(numeric, codes)), network.mlp(read))


@pytest.mark.parametrize("shape", [TabularShape(0, 1, num_frequencies=4), TabularShape(2, 2)], ids=["none", "off"])
def test_without_numbers_or_frequencies_there_are_no_waves(shape):
    assert TabularNetwork(shape, 1).periodic is None


def test_global_random_numbers_are_untouched_when_a_key_is_given():
    state = torch.random.get_rng_state()
    make()
    assert torch.equal(state, torch.random.get_rng_state())
