"""What trainings of a job have in common."""

from __future__ import annotations

import torch
from torch import nn

from poise.fleet.modules._seeded import seeded

from ._models import job, mlp, rows


def test_all_models_begin_alike():
    work = job()
    first, second = work.make(), work.make()
    assert first is not second
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    other = job(seed=1).make()
    assert not torch.equal(first[0].weight, other[0].weight)


def test_a_frozen_backbone_may_be_shared():
    backbone = nn.Linear(6, 6).requires_grad_(requires_grad=False)
    work = job(lambda: nn.Sequential(backbone, nn.Linear(6, 2)))
    assert work.make()[0] is work.make()[0]


def test_the_example_is_a_few_rows():
    x, y = job().example
    assert (x.shape, y.shape) == ((8, 6), (8,))
    assert torch.equal(x, rows(90, 0)[0][:8])


def test_an_example_of_few_rows():
    x, y = job(train=rows(3, 0)).example
    assert len(x) == len(y) == 3


def test_seeded_is_a_function_of_the_key():
    work = job()
    before = torch.get_rng_state()
    with seeded(work.key.stream("a")):
        first = torch.rand(3)
    with seeded(work.key.stream("a")):
        again = torch.rand(3)
    with seeded(work.key.stream("b")):
        other = torch.rand(3)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())
    assert isinstance(mlp(), nn.Module)
