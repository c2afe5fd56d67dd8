"""Which engine trains a plan: what the fast one cannot do is named, and falls back alone."""

from dataclasses import dataclass

import pytest
import torch

from poise import ConfigError
from poise.fleet import Fleet, PlainEngine, preparation
from poise.fleet.compiled import CompiledEngine
from poise.kernels.cpu._activation import CODES
from poise.methods import EMA, Dropout, LabelSmoothing

from ._tables import make_dataset, make_plan
from ._variants import DATA, END, VARIANTS, go_on, plan_with, same, train

ENGINES = (CompiledEngine(1), PlainEngine())


@dataclass(frozen=True)
class GentleDropout(Dropout):
    """May have changed anything."""


@dataclass(frozen=True)
class FastAverage(EMA):
    """Averages run between steps, in Python, so this is fine."""

    def rate(self, clock):
        return 0.5


def test_what_it_cannot_do_is_named(monkeypatch):
    engine = CompiledEngine()
    assert engine.why_not(VARIANTS[0]) == ""
    assert engine.why_not(plan_with(GentleDropout(p=0.1))) == "method GentleDropout"
    assert engine.why_not(plan_with(dtype=torch.bfloat16)) == "dtype bfloat16"
    assert engine.why_not(plan_with(dtype=torch.float16)) == "dtype float16"
    smooth = plan_with(LabelSmoothing(smoothing=0.1))
    assert engine.why_not(smooth) == ""
    regression = make_dataset("regression")
    assert "LabelSmoothing" in engine.why_not(make_plan(smooth.recipe, regression, "regression"))
    monkeypatch.delitem(CODES, "relu")
    assert engine.why_not(plan_with()) == "activation relu"


def test_a_class_of_the_same_name_is_not_taken_for_the_known_one():
    twin = type("Dropout", (Dropout,), {"__doc__": "Another one."})
    assert CompiledEngine().why_not(plan_with(twin(p=0.1))) == "method Dropout"


def test_an_average_of_ones_own_is_honored():
    plan = plan_with(FastAverage(), dtype=torch.float64)
    assert CompiledEngine().why_not(plan) == ""
    plain = PlainEngine()
    states = plain.start([plan], DATA)
    plain.advance([plan], states, DATA, until_epochs=[END], on_epoch=go_on)
    found = train([plan])[0]
    torch.testing.assert_close(found.tensors["average"], states[0].tensors["average"], rtol=1e-9, atol=1e-12)
    assert not torch.equal(
        found.tensors["average"], train([plan_with(EMA(), dtype=torch.float64)])[0].tensors["average"]
    )


def test_a_plan_that_it_cannot_train_falls_back_alone():
    odd = plan_with(GentleDropout(p=0.2), name="odd")
    fleet = Fleet([VARIANTS[0], odd, VARIANTS[1]], DATA, engines=ENGINES)
    assert [choice.engine.name for choice in fleet.choices] == ["compiled", "plain", "compiled"]
    calls = []
    states = fleet.run(on_epoch=lambda index, plan, state: calls.append((index, plan.name, state.epoch)))
    assert same(states[0], train(VARIANTS[:1])[0])
    assert same(states[2], train(VARIANTS[1:2])[0])
    by_plain = PlainEngine().start([odd], DATA)
    PlainEngine().advance([odd], by_plain, DATA, until_epochs=[END], on_epoch=go_on)
    assert same(states[1], by_plain[0])
    names = {0: "v0", 1: "odd", 2: "v1"}
    assert sorted(calls) == [(i, names[i], epoch) for i in range(3) for epoch in range(1, 6)]


def test_explain_says_which_engine_and_why_not_a_faster_one():
    odd = plan_with(GentleDropout(p=0.2), name="odd")
    plans = [*VARIANTS[:6], odd, plan_with(dtype=torch.bfloat16, name="half")]
    assert Fleet(plans, DATA, engines=ENGINES).explain().splitlines() == [
        "6 plans (v0, v1, v2, v3, v4, ...): compiled",
        "1 plan (odd): plain (not compiled, which has no method GentleDropout)",
        "1 plan (half): plain (not compiled, which has no dtype bfloat16)",
    ]


def test_without_the_plain_engine_the_error_tells_what_is_missing():
    plan = plan_with(GentleDropout(p=0.2), name="odd")
    with pytest.raises(ConfigError, match="'odd': compiled has no method GentleDropout"):
        Fleet([plan], DATA, engines=[CompiledEngine()])


def test_preparation_is_told_until_it_is_done(monkeypatch):
    engine = CompiledEngine(1)
    train(VARIANTS[:1])
    assert engine.preparation(VARIANTS) == preparation(VARIANTS) == ""
    monkeypatch.setattr("poise.fleet.compiled._engine.is_compiled", lambda function: False)
    assert "compiling" in engine.preparation(VARIANTS)
    assert "compiling" in preparation(VARIANTS)
    assert preparation(VARIANTS, [PlainEngine()]) == ""
    assert (CompiledEngine(3).parallelism(), CompiledEngine().parallelism()) == (3, torch.get_num_threads())
