"""Where trainings begin."""

from dataclasses import replace

import torch

from poise.fleet._start import start_states
from poise.methods import BatchNorm, Dropout
from poise.recipe import Budget, Network, Recipe

from ._tables import make_dataset, make_plan

DATA = make_dataset()
NETWORK = Network(width=8, depth=2, init="data")


def start(data=DATA, network=NETWORK, **changes):
    recipe = Recipe((BatchNorm(), Dropout(p=0.3)), budget=Budget(max_epochs=2, batch_size=16), network=network)
    return start_states([make_plan(recipe, data, **changes)], data)[0]


def test_weights_that_are_fitted_to_rows_repeat_with_their_seed_and_not_with_another():
    one, same, other = start(), start(), start(seed=4)
    assert torch.equal(one.tensors["weights"], same.tensors["weights"])
    assert not torch.equal(one.tensors["weights"], other.tensors["weights"])
    assert not torch.equal(one.tensors["weights"], start(network=replace(NETWORK, init="kaiming")).tensors["weights"])
    for name in ("served", "average"):
        assert torch.equal(one.tensors[name], one.tensors["weights"])


def test_both_dtypes_begin_alike():
    single, double = start(), start(dtype=torch.float64)
    assert single.tensors["weights"].dtype == torch.float32
    assert torch.equal(single.tensors["weights"], double.tensors["weights"].float())


def test_validation_rows_and_rows_without_weight_are_not_looked_at():
    recipe = Recipe(network=NETWORK)
    plan = make_plan(recipe, DATA)
    light = plan.train_rows[:20]
    data = replace(DATA, weight=DATA.weight.copy())
    data.weight[light] = 0
    found = [start_states([replace(plan, val_rows=rows)], data)[0].tensors["weights"] for rows in (light, light[:3])]
    assert torch.equal(*found)
    assert not torch.equal(found[0], start_states([plan], DATA)[0].tensors["weights"])
