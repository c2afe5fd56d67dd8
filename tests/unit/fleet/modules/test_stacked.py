"""A stack does what each training does alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from poise import EarlyOnly, Linear
from poise.fleet.modules import ModuleState, PlainLoop, StackedLoop, build, structure
from poise.fleet.modules._stacked import Member
from poise.methods import (
    EMA,
    L1,
    L2,
    SWA,
    BatchNorm,
    Dropout,
    DropPath,
    EarlyStopping,
    FeatureMask,
    GaussianNoise,
    GradientClip,
    LabelSmoothing,
    LayerNorm,
    MaxNorm,
    Mixup,
    WeightDecay,
)

from ._models import conv, cross_entropy, difference, job, mlp, recipe, rows, trained_alone, trained_together

FAMILIES = {
    "bare": [(), ()],
    "dropout": [(Dropout(p=0.1),), (Dropout(p=0.4),), (Dropout(p=Linear(0.5, end=0.0)),)],
    "dropout that begins late": [(Dropout(p=EarlyOnly(0.3, until=0.5)),), (Dropout(p=0.2),)],
    "batch norm": [(BatchNorm(), WeightDecay(weight_decay=w)) for w in (0.01, 0.3)],
    "layer norm and noise": [(LayerNorm(), GaussianNoise(std=s)) for s in (0.1, 0.5)],
    "loss and update": [
        (L2(strength=p / 100), LabelSmoothing(smoothing=p), MaxNorm(max_norm=1 + p), GradientClip(max_norm=p), L1(p))
        for p in (0.1, 0.3)
    ],
    "average": [(EMA(decay=d), WeightDecay()) for d in (0.9, 0.5)],
    "average of some": [(SWA(swa_start=0.5),), ()],
    "mixed rows, for some": [(Mixup(alpha=a), FeatureMask(p=0.1)) for a in (0.0, 0.3)],
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("factory", [mlp, conv])
def test_equal_to_trainings_alone(name, factory):
    work = job(factory, max_epochs=2)
    recipes = [recipe(*methods, lr=1e-2 * (1 + place), bias_lr=0.5) for place, methods in enumerate(FAMILIES[name])]
    together = trained_together(work, recipes)
    for one, state in zip(recipes, together, strict=True):
        alone = trained_alone(work, one)
        assert alone.val_losses == pytest.approx(state.val_losses, rel=1e-11)
        assert difference(alone.tensors, state.tensors) < 1e-10
        assert alone.counters == state.counters
        assert alone.best_epoch == state.best_epoch
        assert alone.best_parts == pytest.approx(state.best_parts, rel=1e-11)


def test_equal_when_passes_are_replayed():
    work = job(max_epochs=14)  # 84 steps: a pass is recorded after 64
    recipes = [recipe(Dropout(p=p), MaxNorm(max_norm=1.0)) for p in (0.1, 0.3)]
    for one, state in zip(recipes, trained_together(work, recipes), strict=True):
        assert trained_alone(work, one).val_losses == pytest.approx(state.val_losses, rel=1e-10)


def test_residual_branches_are_dropped_alike():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.inner, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x):
            x = self.first(x)
            return self.last(x + self.inner(x.relu()))

    work = job(lambda: Residual().double())
    recipes = [recipe(DropPath(p=p)) for p in (0.2, 0.5)]
    for one, state in zip(recipes, trained_together(work, recipes), strict=True):
        assert trained_alone(work, one).val_losses == pytest.approx(state.val_losses, rel=1e-11)


def test_an_engine_goes_on_where_another_stopped():
    work, one = job(max_epochs=4), recipe(Dropout(p=0.2), EMA(decay=0.8), BatchNorm())
    states = [trained_alone(work, one, until=2) for _ in range(2)]
    loop = StackedLoop(work, [Member(one, state, build(work, one)) for state in states])
    loop.run_epoch()
    last = PlainLoop(work, one, states[1])
    last.run_epoch()
    assert states[1].val_losses == pytest.approx(trained_alone(work, one).val_losses, rel=1e-11)
    assert states[1].engines == ["plain", "stacked", "plain"]


def test_frozen_weights_stay():
    def factory():
        model = mlp()
        model[0].requires_grad_(requires_grad=False)
        return model

    work = job(factory)
    one = recipe(WeightDecay(weight_decay=0.5))
    states = trained_together(work, [one, one])
    assert torch.equal(states[0].tensors["weights/0.weight"], work.make()[0].weight)
    assert difference(trained_alone(work, one).tensors, states[0].tensors) < 1e-10


def test_a_frozen_normalization_keeps_its_statistics():
    def factory():
        model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)).double()
        model[1].eval()
        return model

    work, one = job(factory), recipe()
    alone, together = trained_alone(work, one), trained_together(work, [one, one])[0]
    assert alone.tensors["best.buffers/1.running_mean"].abs().max() == 0
    assert difference(alone.tensors, together.tensors) < 1e-10


def test_a_member_that_fails_disturbs_no_other():
    recipes = [recipe(), recipe(lr=100.0), recipe(lr=3e-3)]

    def fails_far_out(outputs, y):
        return cross_entropy(outputs, y) * torch.where(outputs.abs().max() > 30, float("nan"), 1.0)

    bad = job(max_epochs=2, loss=fails_far_out)
    states = [ModuleState() for _ in recipes]
    loop = StackedLoop(bad, [Member(one, state, build(bad, one)) for one, state in zip(recipes, states, strict=True)])
    loop.run_epoch()
    assert states[1].stopped == "non-finite"
    loop.keep([0, 2])
    loop.run_epoch()
    for place in (0, 2):
        assert states[place].val_losses == pytest.approx(trained_alone(bad, recipes[place]).val_losses, rel=1e-10)


def test_early_stopping_counts_each_by_itself():
    work = job(max_epochs=6)
    recipes = [recipe(EarlyStopping(patience=1, min_delta=delta)) for delta in (0.0, 9.0)]
    states = [ModuleState() for _ in recipes]
    members = [Member(one, state, build(work, one)) for one, state in zip(recipes, states, strict=True)]
    loop = StackedLoop(work, members)
    while not any(state.stopped for state in states):
        loop.run_epoch()
    assert [state.stopped for state in states] == ["", "early"]


def test_several_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, left, right):
            return self.left(left) * self.right(right)

    x, y = rows(60, 0)
    v, w = rows(60, 1)
    by_place = job(lambda: Two().double(), train=((x[:, :3], x[:, 3:]), y), val=((v[:, :3], v[:, 3:]), w))
    by_name = job(
        lambda: Two().double(),
        train=({"left": x[:, :3], "right": x[:, 3:]}, y), val=({"left": v[:, :3], "right": v[:, 3:]}, w),
    )  # fmt: skip
    for work in (by_place, by_name):
        alone, together = trained_alone(work, recipe()), trained_together(work, [recipe(), recipe()])[0]
        assert alone.val_losses == pytest.approx(together.val_losses, rel=1e-11)


def test_structures_differ_where_stacks_would():
    work = job()
    one = structure(recipe(Dropout(p=0.1)), build(work, recipe(Dropout(p=0.1))))
    for other in (recipe(Dropout(p=0.3)), recipe(Dropout(p=0.1), lr=1.0)):
        assert structure(other, build(work, other)) == one
    for other in (
        recipe(),
        recipe(Dropout(), BatchNorm()),
        recipe(Dropout(), MaxNorm()),
        recipe(Dropout(), batch_size=8),
    ):
        assert structure(other, build(work, other)) != one or not other.methods
