"""The stacked engine against the plain one: the same plans give the same weights, for every method and every pair."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from poise.fleet import PlainEngine
from poise.fleet.stacked import StackedEngine
from poise.methods import METHODS, BatchNorm, Dropout, GaussianNoise, LayerNorm, WeightDecay
from poise.recipe import AdamW, Budget, Cosine, Network, Recipe
from poise.train import Binary, Multiclass, Plan, Regression

from ._families import DATA, FAMILIES

# 100 steps: 4 an epoch, with a last batch that takes in a leftover row.
ROWS, BUDGET = np.arange(64), Budget(max_epochs=25, batch_size=12)
NETWORK = Network(width=8, depth=2, activation="selu", residual=True, num_bins=2)
CODES = DATA.target
TARGETS = {"binary": np.minimum(CODES, 1), "multiclass": CODES, "regression": 10 + 3 * CODES}
TASKS = {"binary": Binary(), "multiclass": Multiclass(3), "regression": Regression()}
VECTORS = ("weights", "exp_avg", "exp_avg_sq", "average", "statistics", "served", "served_statistics")


def make_plan(*methods, seed=3, kind="multiclass", dtype=torch.float64, **changes):
    settings = {"optimizer": AdamW(lr=Cosine(1e-2)), "budget": BUDGET, "network": NETWORK, **changes}
    return Plan("plan", Recipe(methods=methods, **settings), TASKS[kind], ROWS[:49], ROWS[49:], seed=seed, dtype=dtype)


def train(engine, plans, kind="multiclass"):
    data = replace(DATA, target=TARGETS[kind])
    states = engine.start(plans, data)
    engine.advance(plans, states, data, until_epochs=[10**6] * len(plans), on_epoch=lambda *_: True)
    return states


def largest_difference(one, other):
    """Over all vectors of two states, relative to the largest number of each."""
    worst = 0.0
    for name in VECTORS:
        scale = float(one.tensors[name].abs().max()) if one.tensors[name].numel() else 0.0
        if scale:
            worst = max(worst, float((one.tensors[name] - other.tensors[name]).abs().max()) / scale)
    return worst


def check(plans, kind="multiclass", *, within=1e-9, width=None):
    for plain, stacked in zip(
        train(PlainEngine(), plans, kind), train(StackedEngine(width or len(plans)), plans, kind), strict=True
    ):
        assert largest_difference(plain, stacked) <= within
        assert all(bool(torch.isfinite(stacked.tensors[name]).all()) for name in VECTORS)
        numbers = [state.numbers() | {"history": None} for state in (plain, stacked)]
        assert numbers[0] == numbers[1]
        assert len(plain.history) == len(stacked.history)
        for left, right in zip(plain.history, stacked.history, strict=True):
            for name in ("epoch", "lr", "train_loss", "val_loss", "train_score", "val_score"):
                assert getattr(left, name) == pytest.approx(getattr(right, name), rel=max(within, 1e-8), abs=1e-8)


def test_there_are_a_hundred_steps():
    (state,) = train(StackedEngine(1), [make_plan()])
    assert state.step == 100


@pytest.mark.parametrize("name", METHODS)
def test_every_method_alone(name):
    """All settings of a method, side by side where they have one structure."""
    plans = [make_plan(method, seed=seed) for seed, method in enumerate((METHODS[name](), *FAMILIES[name]))]
    check(plans)


@pytest.mark.slow
@pytest.mark.parametrize(("one", "other"), list(combinations(METHODS, 2)))
def test_every_pair(one, other):
    check([make_plan(FAMILIES[one][-1], FAMILIES[other][0])])


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("norm", [(), (BatchNorm(),), (LayerNorm(),)], ids=["bare", "batch", "layer"])
@pytest.mark.parametrize(
    "network",
    [
        Network(width=8, depth=2),
        replace(NETWORK, activation="gelu"),
        Network(width=6, depth=1, num_bins=3),
        Network(width=6, depth=1, num_frequencies=4, frequency_scale=0.7, init="data"),
        replace(NETWORK, parametric=True, input_scale=True),
        replace(NETWORK, num_members=3, input_scale=True, init="data"),
    ],
    ids=["plain", "residual", "bins", "waves", "learned", "members"],
)
def test_every_task_and_network(kind, norm, network):
    methods = (*norm, Dropout(p=0.2, input_p=0.1, where="all"), GaussianNoise(std=0.1), WeightDecay())
    budget = replace(BUDGET, max_epochs=8)
    check([make_plan(*methods, seed=s, kind=kind, network=network, budget=budget) for s in (1, 2)], kind)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "gelu", "silu", "selu", "tanh", "mish", "identity"])
def test_every_activation(activation):
    network = Network(width=8, depth=2, activation=activation)
    check([make_plan(BatchNorm(), Dropout(p=0.3, where="all"), network=network, budget=Budget(6, 12))])


@pytest.mark.parametrize("changes", [{"bias_lr": 0.25}, {"beta1": 0.0}, {"beta2": 0.9, "eps": 1e-3}])
def test_every_setting_of_the_optimizer(changes):
    check([make_plan(BatchNorm(), optimizer=AdamW(lr=Cosine(1e-2, warmup=0.1), **changes), seed=s) for s in (1, 2)])


METHODS_IN_FLOAT32 = (BatchNorm(), Dropout(p=0.2, where="all"), WeightDecay(weight_decay=1e-4))


def test_one_step_in_float32():
    budget = Budget(max_epochs=1, batch_size=64)
    plans = [make_plan(*METHODS_IN_FLOAT32, seed=s, dtype=torch.float32, budget=budget) for s in (1, 2)]
    check(plans, within=1e-6)


def test_a_hundred_steps_of_gradient_descent_in_float32():
    """Adam without memory and with a large eps divides every gradient by nearly the same number."""
    descent = AdamW(lr=100.0, beta1=0.0, beta2=0.0, eps=1e4)
    plans = [make_plan(*METHODS_IN_FLOAT32, seed=s, dtype=torch.float32, optimizer=descent) for s in (1, 2)]
    plain, stacked = train(PlainEngine(), plans), train(StackedEngine(2), plans)
    for one, other in zip(plain, stacked, strict=True):
        assert one.step == 100
        for name in ("weights", "served"):
            left, right = one.tensors[name], other.tensors[name]
            assert float((left - right).abs().max() / left.abs().max()) <= 1e-4
