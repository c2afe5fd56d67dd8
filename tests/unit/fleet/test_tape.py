"""Tapes: the same bits as the functions themselves, in the same places."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

from poise.fleet.stacked._tape import Tapes, moved_to, record


def numbers(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def sides(function, *tensors, times=3):
    """What `function` makes of the tensors by itself and on a tape, called `times` times each."""
    made = []
    for taped in (False, True):
        own = [one.clone() for one in tensors]
        run = record(function, own) if taped else lambda own=own: function(own)
        for _ in range(times - taped):
            run()
        made.append(own)
    return made


def is_same(function, *tensors, times=3):
    plain, taped = sides(function, *tensors, times=times)
    return all(map(torch.equal, plain, taped))


def test_a_function_is_recorded_after_some_calls_and_no_longer_runs():
    calls, x = [], torch.zeros(3)

    def add(tensors):
        calls.append(1)
        tensors[0].add_(1)

    tapes = Tapes(after=2)
    for _ in range(6):
        tapes("add", add, [x])
    assert x.tolist() == [6.0] * 3
    assert len(calls) == 3  # two as it is, one to record it
    tapes.forget()
    tapes("add", add, [x])
    assert len(calls) == 4
    assert x.tolist() == [7.0] * 3


def long_lives(tensors):
    """What is made first is read last, while much is made and left in between."""
    x, y = tensors
    first = x * 2
    view = first.view(-1)[1:]
    for _ in range(5):
        x = (x + 1).sin() @ y
    y.copy_(x + first.t().t())
    y[0].add_(view[:3])


def several_results(tensors):
    x, y = tensors
    var, mean = torch.var_mean(x, 0)
    values, places = x.sort(dim=1)
    y.copy_((x - mean) / var.sqrt() + values.gather(1, places))


def parts_are_written(tensors):
    x, y = tensors
    z = x.clone()
    z[0].zero_()
    torch.add(x[1], 1, out=z[1])
    y.copy_(z)


def constants(tensors):
    x, y = tensors
    ones, room = torch.ones_like(x), torch.zeros_like(x)
    room.add_(x)  # not a constant, though it begins as one
    y.add_(ones * 3 + room + torch.full((3, 3), 0.5, dtype=x.dtype))


def no_form_for_places(tensors):
    x, y = tensors
    y.copy_(torch.where(x > 0, x, torch.nn.functional.softplus(x)).to(torch.float32).double())


@pytest.mark.parametrize("function", [long_lives, several_results, parts_are_written, constants, no_form_for_places])
def test_a_tape_does_what_the_function_does(function):
    assert is_same(function, numbers(3, 3), numbers(3, 3, seed=1))


def test_a_counter_on_the_tape_chooses_the_row_of_each_call():
    def take(tensors):
        table, number, total = tensors
        total.add_(table.index_select(0, number).squeeze(0))
        number.add_(1)

    plain, taped = sides(take, numbers(4, 2), torch.zeros(1, dtype=torch.int64), torch.zeros(2).double(), times=4)
    assert all(map(torch.equal, plain, taped))
    assert plain[1].item() == 4


def test_gradients_through_vmap_are_the_same_bits():
    network = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Linear(8, 2)).double()
    stacked = [numbers(4, *one.shape, seed=seed) for seed, one in enumerate(network.parameters())]
    names = [name for name, _ in network.named_parameters()]
    buffers = {name: torch.stack([one] * 4) for name, one in network.named_buffers()}

    def step(tensors):
        *weights, x = tensors
        leaves = [one.detach().requires_grad_() for one in weights]

        def loss(weights, buffers, x):
            return functional_call(network, (weights, buffers), (x,)).square().mean()

        with torch.enable_grad():
            own = {name: one.clone() for name, one in buffers.items()}
            total = vmap(loss)(dict(zip(names, leaves, strict=True)), own, x).sum()
            gradients = torch.autograd.grad(total, leaves)
        with torch.no_grad():
            for one, gradient in zip(weights, gradients, strict=True):
                one.sub_(gradient, alpha=0.1)

    assert is_same(step, *stacked, numbers(4, 7, 5), times=5)


def test_tensors_move_to_where_others_lie_only_if_they_fit():
    places = {"a": torch.zeros(2), "b": [torch.zeros(1, dtype=torch.int64)]}
    assert moved_to(places, {"a": torch.ones(2), "b": [torch.tensor([5])]})
    assert places["a"].tolist() == [1.0, 1.0]
    assert places["b"][0].item() == 5
    for other in ({"a": torch.ones(3), "b": [torch.tensor([5])]}, {"a": torch.ones(2), "b": [torch.tensor([5.0])]}, []):
        assert not moved_to(places, other)
    assert not moved_to(None, places)
