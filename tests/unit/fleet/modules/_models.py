"""Small models and rows of a user's own, for tests of their trainings."""

from __future__ import annotations

import torch
from torch import nn

from poise import AdamW, Budget, Cosine, Recipe
from poise.fleet.modules import Job, ModuleState, PlainLoop, StackedLoop, build, source_of
from poise.fleet.modules._stacked import Member

cross_entropy = nn.functional.cross_entropy


def rows(number, seed, dtype=torch.float64):
    """x (N, 6) and classes that need a product of two features."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(number, 6, generator=generator, dtype=dtype)
    return x, (x[:, 0] * x[:, 1] + x[:, 2] > 0).long()


def mlp():
    return nn.Sequential(
        nn.Linear(6, 12), nn.ReLU(), nn.Dropout(0.1), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 2)
    ).double()


def conv():
    """Reads 6 numbers as a small image."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)),
        nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.1),
        nn.Conv2d(4, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2),
    ).double()  # fmt: skip


def job(factory=mlp, *, train=None, val=None, loss=cross_entropy, max_epochs=3, seed=0):
    return Job(
        factory, source_of(train or rows(90, 0), "train"), source_of(val or rows(300, 1), "val"), loss, max_epochs, seed
    )


def recipe(*methods, lr=1e-2, bias_lr=1.0, batch_size=16):
    return Recipe(
        methods=methods, optimizer=AdamW(lr=Cosine(lr), bias_lr=bias_lr), budget=Budget(batch_size=batch_size)
    )


def trained_alone(work, one, *, until=None):
    state = ModuleState()
    loop = PlainLoop(work, one, state)
    while not state.stopped and state.epoch != until:
        loop.run_epoch()
    return state


def trained_together(work, recipes):
    states = [ModuleState() for _ in recipes]
    members = [Member(one, state, build(work, one)) for one, state in zip(recipes, states, strict=True)]
    loop = StackedLoop(work, members)
    while not states[0].stopped:
        loop.run_epoch()
    return states


def difference(a, b):
    """The largest between the tensors of two states, but for statistics that only eval mode reads, outside the best."""
    assert a.keys() == b.keys()
    compared = [name for name in a if name.startswith("best.") or ("running" not in name and "num_batches" not in name)]
    return max(
        (float((a[name].double() - b[name].double()).abs().max()) for name in compared if a[name].numel()), default=0.0
    )
