"""Encoded rows: shared where tables are the same, and never where they are not."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from poise import ConfigError
from poise.data import Encoder
from poise.fleet import Fleet, PlainEngine
from poise.recipe import Budget, Network, Recipe

from ._tables import make_dataset, make_plan

RECIPE = Recipe(budget=Budget(2, 16), network=Network(width=8, depth=1))


def test_a_table_like_another_is_not_encoded_again(monkeypatch):
    calls = []
    for name in ("fit", "transform"):
        plain = getattr(Encoder, name)
        counted = lambda *args, plain=plain, name=name, **kw: calls.append(name) or plain(*args, **kw)  # noqa: E731
        monkeypatch.setattr(Encoder, name, counted)
    first = make_dataset("regression")
    for shift in (0.0, 1.0, 2.0):
        data = replace(first, target=first.target * 2 + shift, like=first)
        Fleet([make_plan(RECIPE, data, "regression", seed=int(shift))], data, engines=[PlainEngine()]).run()
    assert (calls.count("fit"), calls.count("transform")) == (1, 2)


def test_targets_and_weights_are_its_own():
    first = make_dataset("regression")
    rng = np.random.default_rng(0)
    other = {"target": rng.normal(size=90), "weight": rng.uniform(1, 2, 90)}
    states = []
    for data in (replace(first, **other, like=first), replace(first, **other)):
        states += Fleet([make_plan(RECIPE, data, "regression")], data).run()
    assert all(torch.equal(tensor, states[1].tensors[name]) for name, tensor in states[0].tensors.items())


def test_another_table_is_refused():
    first, second = make_dataset(), make_dataset(seed=1)
    with pytest.raises(ConfigError, match="`like`"):
        replace(second, like=first)
