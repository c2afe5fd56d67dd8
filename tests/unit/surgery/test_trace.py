"""Graphs of networks: from a run, from the source, and the same where both can be had."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from poise._errors import ConfigError
from poise.surgery._graph._trace import graph_of, record


def mlp():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 2))


class Residual(nn.Module):
    """x + dropout(f(x)) with functional calls, control flow and a parameter that is used by hand."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.3)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x):
        h = F.relu(self.kernel(x).view(-1, 4))
        if float(h.sum()) > 1e9:
            h = h * 0
        return x + self.drop(h) * self.scale


def described(graph):
    return [(node.op, node.name, [one.index for one in node.inputs], node.is_output) for node in graph]


def test_a_sequential_is_its_layers():
    graph = record(mlp(), torch.randn(3, 4))
    assert [type(node.module).__name__ for node in graph][1:] == ["Linear", "BatchNorm1d", "ReLU", "Dropout", "Linear"]
    assert [[one.index for one in node.users] for node in graph] == [[1], [2], [3], [4], [5], []]
    assert graph.nodes[-1].is_output
    assert graph.nodes[1].shape == (3, 8)


def test_the_source_says_the_same_as_a_run():
    model = mlp()
    assert described(graph_of(model)) == described(graph_of(model, torch.randn(3, 4)))


def test_functions_parameters_and_branches_are_seen():
    graph = record(Residual(), torch.randn(3, 4))
    ops = {node.op: node for node in graph}
    source, kernel = graph.nodes[0], graph.nodes[1]
    assert ops["mul"].parameters == ("scale",)
    assert ops["relu"].function is F.relu
    assert graph.source(ops["relu"]) is kernel  # the view between moves numbers and changes none
    assert graph.consumers(kernel) == [ops["relu"]]
    assert ops["add"] in source.users and kernel in source.users
    assert graph.sole_consumer(source) is None
    assert graph.source(kernel) is None  # what comes from outside has no source


def test_what_depends_on_values_cannot_be_read_from_the_source():
    with pytest.raises(ConfigError, match="Give example="):
        graph_of(Residual())


def test_dropout_that_returns_its_input_does_not_take_it_over():
    """In eval mode `x` and `drop(x)` are one tensor; what uses x afterwards still uses x."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop, self.a, self.b = nn.Dropout(), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            x = torch.relu(x)
            return self.a(self.drop(x)) + self.b(x)

    graph = record(Net(), torch.randn(3, 4))
    by_name = {node.name: node for node in graph if node.module is not None}
    assert [node.op for node in by_name["b"].inputs] == ["relu"]
    assert by_name["a"].inputs == (by_name["drop"],)


def test_a_tensor_changed_in_place_is_followed():
    class Net(nn.Module):
        def forward(self, x):
            y = x * 2
            y += 1
            return y.relu_()

    graph = record(Net(), torch.randn(3))
    assert [node.op for node in graph] == ["input", "mul", "add", "relu"]
    assert [[one.index for one in node.inputs] for node in graph] == [[], [0], [1], [2]]


def test_shared_layers_have_a_node_for_each_call():
    layer = nn.Linear(4, 4)
    graph = record(nn.Sequential(layer, nn.ReLU(), layer), torch.randn(2, 4))
    assert [node.index for node in graph.calls_of(layer)] == [1, 3]


def test_modes_random_state_and_hooks_stay():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4).eval(), nn.Dropout())
    flags, state = [one.training for one in model.modules()], torch.get_rng_state()
    statistics = model[1].running_mean.clone()
    record(model, torch.randn(5, 4, generator=torch.Generator().manual_seed(0)))
    assert [one.training for one in model.modules()] == flags
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model[1].running_mean, statistics)
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())


def test_hooks_go_when_the_model_fails():
    model = mlp()
    with pytest.raises(RuntimeError):
        record(model, torch.randn(3, 5))
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())
    assert model.training
