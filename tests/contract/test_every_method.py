"""Every method that exists goes through the same checks; a new one is tested before its author writes a test."""

import re
from dataclasses import fields, replace

import pytest
import torch

import poise.methods
import poise.recipe
from poise._errors import ConfigError
from poise.functional.schedule import Constant, Linear
from poise.methods import EMA, METHODS, EarlyStopping, GradientClip, MaxNorm, Method
from poise.nn import set_step
from poise.recipe import Recipe, from_toml, to_toml
from poise.train import Predictor

from ._families import ALL, DATA, FAMILIES, plan_with, train

NAMES = pytest.mark.parametrize("name", METHODS)
INSTANCES = pytest.mark.parametrize(("name", "method"), ALL, ids=[repr(method) for _, method in ALL])

# What stands for "strength zero" where no field can be zero, or why nothing does.
NEUTRAL: dict[str, Method | str] = {
    "MaxNorm": MaxNorm(max_norm=1e6),
    "GradientClip": GradientClip(max_norm=1e6),
    "EMA": EMA(decay=0.0),
    "EarlyStopping": EarlyStopping(patience=1000),
    "BatchNorm": "structural: a normalization is there or not",
    "LayerNorm": "structural: a normalization is there or not",
    "SWA": "structural: the average begins at the latest with the last epoch",
}


def strengths(cls):
    return [one for one in fields(cls) if one.metadata["strength"]]


def test_families_cover_every_method_and_leave_its_defaults():
    assert list(FAMILIES) == list(METHODS)
    for name, family in FAMILIES.items():
        assert all(type(method) is METHODS[name] and method != METHODS[name]() for method in family)
    assert {one.__name__ for one in METHODS.values()} == set(METHODS) <= set(poise.methods.__all__)


@INSTANCES
def test_repr_reads_back(name, method):
    known = vars(poise.methods) | {one: getattr(poise.recipe, one) for one in poise.recipe.__all__}
    again = eval(repr(method), {}, known)
    assert again == method
    assert hash(again) == hash(method)
    assert len({again, method, replace(method)}) == 1


@INSTANCES
def test_toml_there_and_back(name, method):
    recipe = Recipe(methods=(method,))
    again = from_toml(to_toml(recipe))
    assert again == recipe
    assert again.methods[0] == method
    assert to_toml(again) == to_toml(recipe)


@NAMES
def test_every_strength_takes_a_schedule(name):
    cls = METHODS[name]
    for one in strengths(cls):
        low, high = one.metadata["search"] or (0.25, 0.75)
        low = low or high / 4
        method = cls(**{one.name: Linear(low, end=high)})
        assert method.is_scheduled
        assert getattr(method.at(0.0), one.name) == low
        assert getattr(method.at(1.0), one.name) == pytest.approx(high)
        assert not method.at(0.5).is_scheduled
        assert cls(**{one.name: Constant(high)}).at(0.3) == cls(**{one.name: high})
    assert cls().at(0.5) is not None
    assert not cls().is_scheduled


def bad_values(one):
    """Values that the declaration of a field rules out."""
    meta = one.metadata
    if meta.get("choices") is not None:
        return ["nonsense", 1, ("nonsense",), None]
    if isinstance(one.default, bool):
        return [1, "yes", None]
    interval = meta["interval"]
    bad = [float("nan"), float("inf"), "1", None, True, (0.5,), 10**400, interval.low - 1]
    bad += [interval.low] if interval.low_open else []
    if interval.high != float("inf"):
        bad += [interval.high + 1, *([interval.high] if interval.high_open else [])]
    if isinstance(one.default, int):
        bad += [interval.low + 0.5]
    return bad


@NAMES
def test_out_of_range_settings_name_the_field(name):
    cls = METHODS[name]
    for one in fields(cls):
        bad = bad_values(one)
        if one.metadata["strength"]:
            bad += [Linear(value, end=0.5) for value in bad] + [Linear(0.5, end=value) for value in bad]
        for value in bad:
            with pytest.raises(ConfigError, match=f"`{one.name}` must be"):
                cls(**{one.name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("WeightDecay", "kernel"), ("WeightDecay", ["kernel"]), ("Dropout", ("auto", "all")), ("Dropout", ())],
)
def test_choices_are_one_or_many_as_declared(name, value):
    field = {"WeightDecay": "roles", "Dropout": "where"}[name]
    with pytest.raises(ConfigError, match=f"`{field}` must be"):
        METHODS[name](**{field: value})


@pytest.fixture(scope="module")
def bare():
    return train(plan_with())


@NAMES
def test_strength_zero_changes_nothing(name, bare):
    cls = METHODS[name]
    neutral = NEUTRAL.get(name) or cls(**{one.name: 0.0 for one in strengths(cls)})
    if isinstance(neutral, str):
        assert strengths(cls) == []
        return
    state = train(plan_with(neutral))
    assert torch.equal(state.tensors["weights"], bare.tensors["weights"])
    if name != "EarlyStopping":  # which serves the best epoch and not the last
        assert torch.equal(state.tensors["served"], bare.tensors["served"])


@INSTANCES
def test_training_is_finite_repeats_and_differs_from_bare(name, method, bare):
    first, second = train(plan_with(method)), train(plan_with(method))
    assert first.tensors.keys() == second.tensors.keys()
    for tensor_name, tensor in first.tensors.items():
        assert torch.equal(tensor, second.tensors[tensor_name]), tensor_name
        assert torch.isfinite(tensor).all(), tensor_name
    if method in FAMILIES[name] and name != "EarlyStopping":
        same = [first.tensors[one].shape == bare.tensors[one].shape for one in ("served", "served_statistics")]
        assert not all(same) or not torch.equal(first.tensors["served"], bare.tensors["served"])


@INSTANCES
def test_prediction_is_deterministic(name, method):
    plan = plan_with(method, max_epochs=1)
    predictor = Predictor(plan.recipe, plan.task, train(plan))
    first = predictor.predict(DATA.table)
    set_step(predictor.network, 12345)
    assert torch.equal(first, predictor.predict(DATA.table))
    torch.testing.assert_close(predictor.predict(DATA.table[5:6]), first[5:6], rtol=1e-12, atol=1e-12)


@NAMES
def test_docstring_tells_all(name):
    cls = METHODS[name]
    for section in ("Args:", "Shape:", "Example:", "Reference:"):
        assert section in cls.__doc__
    entries = re.split(r"\n        (?=\w+: )", cls.__doc__.partition("Args:")[2].partition("Shape:")[0])
    documented = {entry.partition(":")[0].strip(): entry for entry in entries}
    for one in fields(cls):
        entry = documented[one.name]
        if one.metadata.get("search"):
            found = re.search(r"Search: \[([^,]+), ([^\]]+)\]", entry)
            assert found, one.name
            assert tuple(map(float, found.groups())) == one.metadata["search"]
