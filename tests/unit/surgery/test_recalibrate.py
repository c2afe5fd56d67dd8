"""Exact statistics whatever the batches."""

import pytest
import torch
from torch import nn

from poise.nn import BatchNorm
from poise.surgery import recalibrate


def make_network(kind):
    torch.manual_seed(0)
    layers = [
        nn.Linear(4, 8),
        kind(8),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(8, 8),
        kind(8),
        nn.Tanh(),
        nn.Linear(8, 2),
    ]
    return nn.Sequential(*layers).double().train()


def statistics(network):
    return [buffer for name, buffer in network.named_buffers() if "running" in name]


@pytest.mark.parametrize("kind", [BatchNorm, nn.BatchNorm1d])
def test_batches_equal_one_pass_over_all_rows(kind):
    rows = torch.randn(53, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 3 + 100
    whole, parts, by_hand = make_network(kind), make_network(kind), make_network(kind)
    outputs = recalibrate(whole, [rows])
    assert recalibrate(parts, list(rows.split(16))) is None
    for one, other in zip(statistics(whole), statistics(parts), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(outputs, parts.eval()(rows), rtol=1e-12, atol=1e-12)

    x = rows
    for layer in by_hand:
        if isinstance(layer, kind):
            x = (x - x.mean(0)) / torch.sqrt(x.var(0, correction=0) + layer.eps)
        elif not isinstance(layer, nn.Dropout):
            x = layer(x)
    torch.testing.assert_close(outputs, x, rtol=1e-9, atol=1e-9)


def test_modes_and_parameters_stay_as_they_were():
    network = make_network(nn.BatchNorm1d)
    network[3].eval()
    before = [parameter.clone() for parameter in network.parameters()]
    recalibrate(network, [torch.randn(9, 4, dtype=torch.float64)] * 2)
    assert [module.training for module in network] == [True, True, True, False, True, True, True, True]
    assert all(torch.equal(one, other) for one, other in zip(before, network.parameters(), strict=True))
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_convolutions_count_every_position():
    network = nn.Sequential(nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3)).double()
    images = torch.randn(7, 1, 5, 5, dtype=torch.float64)
    recalibrate(network, [images[:5], images[5:]])
    maps = network[0](images)
    torch.testing.assert_close(network[1].running_mean, maps.mean((0, 2, 3)), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(network[1].running_var, maps.var((0, 2, 3), correction=0), rtol=1e-12, atol=1e-12)
