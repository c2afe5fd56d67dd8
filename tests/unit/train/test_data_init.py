"""First weights from rows: variance 1 before every nonlinearity, bends among the rows."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from poise._random import Key
from poise.data import Encoder, infer_schema
from poise.methods import BatchNorm, Dropout, GaussianNoise, LayerNorm
from poise.nn import Linear
from poise.recipe import Network, Recipe
from poise.train import Multiclass, build_network, initialize_from_rows

ROWS = np.arange(60)
RNG = np.random.default_rng(0)
TABLE = pl.DataFrame({"x": RNG.normal(5, 40, 60), "y": RNG.random(60) ** 4, "group": ["a", "b", "c"] * 20})
PLAIN = Network(width=30, depth=3, num_frequencies=3, activation="silu")
RESIDUAL = replace(PLAIN, residual=True)


def build(*methods, network=PLAIN, table=TABLE):
    encoder = Encoder.fit(TABLE, infer_schema(TABLE), ROWS)
    built = build_network(
        Recipe(methods=methods, network=network), encoder, Multiclass(3), key=Key(0), dtype=torch.float64
    ).network
    return built, encoder.transform(table, dtype=torch.float64)


def fit(network, inputs, seed=1):
    initialize_from_rows(network, inputs, Key(seed))
    return network


def reached(network, inputs):
    """Input and output of each linear layer, by name, in eval mode."""
    found = {}
    for name, layer in network.named_modules():
        if isinstance(layer, Linear):
            layer.register_forward_hook(lambda _, args, out, name=name: found.__setitem__(name, (args[0], out)))
    with torch.no_grad():
        network.eval()(inputs)
    return found


@pytest.mark.parametrize("network", [PLAIN, RESIDUAL], ids=["plain", "residual"])
@pytest.mark.parametrize("norm", [(), (BatchNorm(),), (LayerNorm(),)], ids=["bare", "batch", "layer"])
def test_units_before_a_nonlinearity_have_variance_one(norm, network):
    net, inputs = build(*norm, Dropout(p=0.4), GaussianNoise(std=0.5), network=network)
    for name, (_, out) in reached(fit(net, inputs), inputs).items():
        if name.endswith((".linear", ".linear1")):
            torch.testing.assert_close(out.std(dim=0, correction=0), torch.ones_like(out[0]), rtol=1e-6, atol=0)


def test_units_bend_within_the_rows_and_at_points_of_their_own():
    net, inputs = build()
    for name, (_, out) in reached(fit(net, inputs), inputs).items():
        if name.endswith(".linear"):
            assert (out.min(dim=0).values < 0).all()
            assert (out.max(dim=0).values > 0).all()
            shares = (out > 0).double().mean(dim=0)
            assert 0.3 < float(shares.mean()) < 0.7
            assert float(shares.std()) > 0.05


def test_what_feeds_no_nonlinearity_keeps_its_weights():
    for network, kept in ((PLAIN, ("mlp.output",)), (RESIDUAL, ("mlp.output", "mlp.stem", "linear2"))):
        (before, _), (after, inputs) = build(network=network), build(network=network)
        fit(after, inputs)
        for (name, one), other in zip(before.named_parameters(), after.parameters(), strict=True):
            is_kept = "linear" not in name or any(part in name for part in kept)
            assert torch.equal(one, other) == is_kept, name


def test_it_is_a_function_of_rows_and_key_and_leaves_nothing_behind():
    state = torch.random.get_rng_state()
    one, other, third = (fit(*build(Dropout()), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.random.get_rng_state())
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one.mlp.block0.linear.bias, third.mlp.block0.linear.bias)
    assert one.training
    assert all(not module._forward_pre_hooks for module in one.modules())


@pytest.mark.parametrize("num", [1, 2])
def test_few_or_equal_rows_leave_finite_weights(num):
    for table in (TABLE[:num], TABLE[[3] * 10]):
        net = fit(*build(BatchNorm(), table=table))
        assert all(bool(torch.isfinite(one).all()) for one in net.parameters())
        assert max(float(one.detach().abs().max()) for one in net.parameters()) < 1e4
