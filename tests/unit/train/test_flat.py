"""Many tensors as one vector."""

import pytest
import torch
from torch import nn

from poise.nn import BatchNorm
from poise.train import flatten_, flatten_gradients_, running_statistics


def make_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), BatchNorm(4), nn.Linear(4, 2), nn.BatchNorm1d(2), nn.PReLU())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parameters_become_views_with_their_values(dtype):
    network = make_network()
    before = [parameter.detach().clone() for parameter in network.parameters()]
    vector = flatten_(list(network.parameters()), dtype)
    assert vector.dtype == dtype
    assert vector.numel() == sum(one.numel() for one in before)
    for one, parameter in zip(before, network.parameters(), strict=True):
        assert torch.equal(parameter.detach(), one.to(dtype))
    vector.mul_(2)
    for one, parameter in zip(before, network.parameters(), strict=True):
        assert torch.equal(parameter.detach(), 2 * one.to(dtype))
    network[0].weight.data.fill_(7)
    assert vector[:12].tolist() == [7] * 12


def test_nothing_becomes_an_empty_vector():
    assert flatten_([], torch.float64).shape == (0,)
    assert flatten_([], torch.float64).dtype == torch.float64


def test_gradients_accumulate_into_the_vector():
    one, other = make_network(), make_network()
    vector = flatten_gradients_(list(one.parameters()))
    x = torch.randn(6, 3)
    for _ in range(2):
        for network in (one, other):
            network(x).square().sum().backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in other.parameters()])
    torch.testing.assert_close(vector, expected)
    assert float(vector.abs().sum()) > 0
    vector.zero_()
    assert all(not parameter.grad.any() for parameter in one.parameters())


def test_running_statistics_are_means_and_variances_only():
    network = make_network()
    found = running_statistics(network)
    assert [one.data_ptr() for one in found] == [
        one.data_ptr()
        for one in (network[1].running_mean, network[1].running_var, network[3].running_mean, network[3].running_var)
    ]
    assert running_statistics(nn.BatchNorm1d(3, track_running_stats=False)) == []


def test_statistics_move_within_the_vector():
    network = make_network()
    vector = flatten_(running_statistics(network), torch.float32)
    assert vector.tolist() == [0] * 4 + [1] * 4 + [0] * 2 + [1] * 2
    network.train()(torch.randn(6, 3))
    parts = [network[1].running_mean, network[1].running_var, network[3].running_mean, network[3].running_var]
    assert torch.equal(vector, torch.cat(parts))
    assert (vector != torch.tensor([0.0] * 4 + [1.0] * 4 + [0.0] * 2 + [1.0] * 2)).all()
