"""Moments of batches, pooled, are those of all rows."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from poise import freeze, recalibrate
from poise.fleet.modules._statistics import Pool, buffer_names, moments_of, moving_norms

from ._models import rows


def model():
    torch.set_rng_state(torch.Generator().manual_seed(0).get_state())
    return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3), nn.BatchNorm1d(3)).double()


def pooled(network, batches):
    layers, pool, counts = moving_norms(network), Pool(), {}
    network.eval()
    with torch.no_grad():
        for x in batches:
            pool.add(moments_of(layers, lambda x=x: network(x), counts), counts)
    return {name: (mean, var) for name, mean, var in pool.items()}


@pytest.mark.parametrize("sizes", [[60], [32, 28], [20, 39, 1]])
def test_equal_to_recalibrate_in_one_pass(sizes):
    with torch.random.fork_rng(devices=[]):
        network = model()
        twin = model()
    batches = rows(60, 0)[0].split(sizes)
    found = pooled(network, batches)
    recalibrate(twin, batches, sequential=False)
    assert list(found) == ["1", "4"]
    for name, (mean, var) in found.items():
        assert torch.allclose(mean, twin.get_submodule(name).running_mean, rtol=1e-12)
        assert torch.allclose(var, twin.get_submodule(name).running_var, rtol=1e-12)


def test_only_what_moves_is_measured():
    network = nn.Sequential(
        nn.BatchNorm1d(6), nn.BatchNorm1d(6), nn.BatchNorm1d(6), nn.BatchNorm1d(6, track_running_stats=False)
    )
    network[0].eval()
    freeze(network, network[1])
    assert list(moving_norms(network)) == ["2"]


def test_names_of_buffers():
    network = nn.Sequential(nn.Sequential(nn.BatchNorm1d(2)))
    assert buffer_names(network, moving_norms(network)) == {"0.0": ("0.0.running_mean", "0.0.running_var")}


def test_a_layer_with_a_single_value_keeps_its_statistics():
    assert pooled(nn.BatchNorm1d(6).double(), [rows(1, 0)[0]]) == {}
