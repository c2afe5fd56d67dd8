"""Recorded passes: the same bits as the functions themselves, in place or not."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

from poise.fleet.stacked import Stack, _training
from poise.fleet.stacked._replay import Replays, record
from poise.fleet.stacked._tape import Tapes

from .test_stacked import DATA, StackedEngine, plan_of, recipe, same, train
from .test_stacked import METHODS as SOME


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_function_is_recorded_after_some_calls_and_no_longer_runs():
    calls = []

    def double(x):
        calls.append(1)
        return {"y": x * 2}

    replays = Replays(after=2)
    for number in range(6):
        x = numbers(3, seed=number)
        assert torch.equal(replays("double", double, x)["y"], x * 2)
    assert len(calls) == 3  # two as it is, one to record it
    assert torch.equal(replays("double", double, numbers(4))["y"], numbers(4) * 2)
    assert len(calls) == 4  # another shape is another function


def test_a_replay_leaves_what_it_was_given():
    def shrink(x, factor):
        y = x.clone()
        y.mul_(factor)
        return y

    x, factor = numbers(4, 3), torch.tensor(0.5)
    replay = record(shrink, (x, factor))
    y = numbers(4, 3, seed=1)
    before = y.clone()
    assert torch.equal(replay(y, torch.tensor(0.25)), before * 0.25)
    assert torch.equal(y, before)


def test_writes_to_parts_of_a_tensor_are_kept():
    def zero_row(x):
        y = x.clone()
        y[0].zero_()
        torch.add(x[1], 1, out=y[1])
        return y

    replay, x = record(zero_row, (numbers(3, 2),)), numbers(3, 2, seed=5)
    assert torch.equal(replay(x), zero_row(x))


def test_gradients_through_vmap_are_the_same_bits():
    network = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Linear(8, 2)).double()
    stacked = {name: numbers(4, *one.shape, seed=len(name)) for name, one in network.named_parameters()}
    buffers = {name: torch.stack([one] * 4) for name, one in network.named_buffers()}

    def gradients(weights, buffers, x):
        weights = {name: one.detach().requires_grad_() for name, one in weights.items()}
        with torch.enable_grad():

            def loss(weights, buffers, x):
                return functional_call(network, (weights, buffers), (x,)).square().mean()

            total = vmap(loss)(weights, buffers, x).sum()
            return torch.autograd.grad(total, list(weights.values()))

    replay = record(gradients, (stacked, dict(buffers), numbers(4, 7, 5)))
    x = numbers(4, 7, 5, seed=9)
    assert all(map(torch.equal, replay(stacked, dict(buffers), x), gradients(stacked, dict(buffers), x)))


@pytest.mark.parametrize("methods", [(), SOME])
def test_plans_train_to_the_same_bits(methods, monkeypatch):
    plans = [plan_of(recipe(*methods), seed=seed) for seed in range(3)]
    results = []
    for after in (10**9, 3):
        monkeypatch.setattr(_training, "Tapes", lambda after=after: Tapes(after=after))
        results.append(train(StackedEngine(3), plans, DATA))
    assert all(map(same, *results))


def test_training_and_eval_passes_are_told_apart():
    stack = Stack([nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)) for _ in range(2)])
    stack.replay(Replays(after=0))
    x = torch.ones(2, 4, 3).cumsum(1)

    def loss(network, _, x):
        return network(x).square().mean()

    trained, _ = stack.train().gradients(loss, x)
    evaluated, _ = stack.eval().gradients(loss, x)
    assert not torch.allclose(trained, evaluated)
