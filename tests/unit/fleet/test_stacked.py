"""The stacked engine: plans come, go, fail and resume, and no other plan notices."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from poise._errors import ConfigError
from poise.fleet import Fleet, PlainEngine
from poise.fleet.stacked import StackedEngine, _scoring, _training
from poise.fleet.stacked._tape import Tapes
from poise.methods import (
    EMA,
    L2,
    SWA,
    BatchNorm,
    Dropout,
    EarlyStopping,
    GaussianNoise,
    LabelSmoothing,
    LossMethod,
    MaxNorm,
    Mixup,
    WeightDecay,
)
from poise.recipe import AdamW, Budget, Constant, Cosine, CosLog, Linear, Network, Recipe
from poise.train import load_state, save_state

from ._tables import make_dataset, make_plan

BUDGET = Budget(max_epochs=4, batch_size=16)
NETWORK = Network(width=7, depth=2, activation="gelu", num_bins=3)
METHODS = (BatchNorm(), Dropout(p=0.2, where="all"), WeightDecay(weight_decay=0.1), EMA(decay=0.9), Mixup(alpha=0.3))
RECIPE = Recipe(methods=METHODS, optimizer=AdamW(lr=CosLog(1e-2)), budget=BUDGET, network=NETWORK)
DATA = make_dataset()
VECTORS = ("weights", "exp_avg", "exp_avg_sq", "average", "statistics", "served", "served_statistics")


def recipe(*methods, max_epochs=4, **changes):
    budget = Budget(max_epochs=max_epochs, batch_size=16)
    return replace(RECIPE, methods=methods or METHODS, budget=budget, **changes)


def plan_of(given=RECIPE, *, seed=3, data=DATA, kind="binary", **changes):
    return make_plan(given, data, kind, seed=seed, **changes)


def advance(engine, plans, states, data=DATA, until_epoch=10**6, on_epoch=lambda *_: True):
    engine.advance(plans, states, data, until_epochs=[until_epoch] * len(plans), on_epoch=on_epoch)
    return states


def train(engine, plans, data=DATA, **options):
    return advance(engine, plans, engine.start(plans, data), data, **options)


def same(one, other):
    untimed = [[replace(record, seconds=0) for record in state.history] for state in (one, other)]
    numbers = [state.numbers() | {"history": None} for state in (one, other)]
    bits = all(torch.equal(one.tensors[name], other.tensors[name]) for name in VECTORS)
    return bits and untimed[0] == untimed[1] and numbers[0] == numbers[1]


def is_close(one, other, within=1e-9):
    for name in VECTORS:
        left, right = one.tensors[name], other.tensors[name]
        if left.numel() and float((left - right).abs().max()) > within * float(left.abs().max()):
            return False
    return (one.epoch, one.step, one.stopped, one.best_epoch) == (
        other.epoch,
        other.step,
        other.stopped,
        other.best_epoch,
    )


# The engine: plans beside each other


def various(dtype=torch.float64):
    """Plans of one structure that differ in all that may differ."""
    recipes = [
        recipe(BatchNorm(), Dropout(p=p, where="all"), L2(strength=s), MaxNorm(max_norm=m), *extra,
               max_epochs=epochs, optimizer=AdamW(lr=lr))
        for p, s, m, lr, epochs, extra in (
            (0.1, 1e-3, 3.0, Constant(1e-2), 4, ()),
            (Linear(0.5, end=0.0), Cosine(1e-2), Linear(2.0, end=0.5), CosLog(2e-2), 6, (EMA(decay=0.8),)),
            (0.0, 0.0, 0.4, Cosine(3e-3, warmup=0.3), 3, (SWA(swa_start=0.3), EarlyStopping(patience=1))),
        )
    ]  # fmt: skip
    rows = np.random.default_rng(0).permutation(90)
    plans = [plan_of(one, seed=seed, dtype=dtype) for seed, one in enumerate(recipes)]
    return [
        replace(plan, train_rows=np.sort(np.roll(rows, 10 * n)[:65]), val_rows=np.sort(np.roll(rows, 10 * n)[65:]))
        for n, plan in enumerate(plans)
    ]


@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_plans_may_differ_in_strengths_rows_lengths_and_learning_rates(width):
    plans = various()
    assert len({StackedEngine()._structure(plan, *PlainEngine().start([plan], DATA)) for plan in plans}) == 1
    for plain, stacked in zip(train(PlainEngine(), plans), train(StackedEngine(width), plans), strict=True):
        assert is_close(plain, stacked)


def test_plans_of_different_structure_train_in_stacks_of_their_own():
    others = [
        recipe(Dropout(p=0.2)),
        recipe(BatchNorm(momentum=0.2)),
        replace(RECIPE, network=replace(NETWORK, width=8)),
        replace(RECIPE, optimizer=AdamW(beta1=0.8)),
        replace(RECIPE, budget=replace(BUDGET, batch_size=17)),
        recipe(WeightDecay(roles=("bias",))),
        recipe(Dropout(p=0.2, input_p=0.1)),
    ]
    plans = [plan_of(one, dtype=torch.float64) for one in (RECIPE, *others)]
    plans += [replace(plans[0], train_rows=plans[0].train_rows[1:]), replace(plans[0], val_rows=plans[0].val_rows[1:])]
    engine = StackedEngine(2)
    states = engine.start(plans, DATA)
    assert len({engine._structure(plan, state) for plan, state in zip(plans, states, strict=True)}) == len(plans)
    for plain, stacked in zip(train(PlainEngine(), plans), advance(engine, plans, states), strict=True):
        assert is_close(plain, stacked)


# The engine: bits


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_neighbors_do_not_matter_and_neither_does_when_they_end(dtype):
    plan = plan_of(dtype=dtype)
    (alone,) = train(StackedEngine(3), [plan])
    ends = [
        plan_of(recipe(max_epochs=n), seed=n, dtype=dtype)  # three at a time: they end and are replaced
        for n in (1, 3, 2, 4, 1, 2)
    ]
    assert same(alone, train(StackedEngine(3), [plan, *ends])[0])
    first, *_, last = train(StackedEngine(3), [*ends, plan])
    assert same(alone, last)
    assert same(first, train(StackedEngine(3), ends[:1])[0])


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_resumed_from_disk_bit_for_bit(cut, tmp_path):
    plans = [plan_of(seed=seed) for seed in range(3)]
    straight, engine = train(StackedEngine(2), plans), StackedEngine(2)
    for index, state in enumerate(train(engine, plans, until_epoch=cut)):
        assert state.epoch == cut
        save_state(state, tmp_path, f"plan-{index}")
    states = [load_state(tmp_path, f"plan-{index}") for index in range(3)]
    for one, other in zip(straight, advance(StackedEngine(2), plans, states), strict=True):
        assert same(one, other)


class Stop(Exception):
    pass


def test_a_fleet_that_is_cut_off_ends_with_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr("poise.fleet._fleet._SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    plans, engines = [plan_of(recipe(max_epochs=1 + seed % 3), seed=seed) for seed in range(5)], [StackedEngine(2)]
    straight = Fleet(plans, DATA, engines=engines).run()
    for cut in (1, 4, 5):
        seen = []

        def stop(*_, cut=cut, seen=seen):
            seen.append(1)
            if len(seen) == cut:
                raise Stop

        with pytest.raises(Stop):
            Fleet(plans, DATA, folder=tmp_path, engines=engines).run(on_epoch=stop)
    resumed = Fleet(plans, DATA, folder=tmp_path, engines=engines).run()
    assert all(same(one, other) for one, other in zip(straight, resumed, strict=True))


def test_a_state_moves_between_engines():
    plans = [plan_of(seed=seed, dtype=torch.float64) for seed in range(2)]
    straight = train(PlainEngine(), plans)
    there = advance(StackedEngine(2), plans, train(PlainEngine(), plans, until_epoch=2))
    back = advance(PlainEngine(), plans, train(StackedEngine(2), plans, until_epoch=2))
    for one, *others in zip(straight, there, back, strict=True):
        assert all(is_close(one, other) for other in others)


def test_epochs_are_taken_in_any_steps():
    plans, engine = [plan_of(seed=seed) for seed in range(2)], StackedEngine(2)
    states = engine.start(plans, DATA)
    for until_epoch in (1, 1, 3, 9):
        advance(engine, plans, states, until_epoch=until_epoch)
    assert all(same(one, other) for one, other in zip(train(engine, plans), states, strict=True))


# The engine: ends


def test_a_variant_that_fails_is_marked_and_disturbs_nobody():
    data = make_dataset("regression")
    tame = [recipe(BatchNorm(), L2(strength=s), optimizer=AdamW(lr=Constant(1e-2))) for s in (0.0, 1e-3)]
    wild = recipe(BatchNorm(), L2(strength=1e38), optimizer=AdamW(lr=Constant(100.0)))
    plans = [plan_of(one, data=data, kind="regression") for one in (tame[0], wild, tame[1])]
    quiet = [plans[0], replace(plans[1], recipe=tame[0]), plans[2]]
    states, expected = train(StackedEngine(3), plans, data), train(StackedEngine(3), quiet, data)
    assert states[1].stopped == "non-finite"
    assert same(states[0], expected[0])
    assert same(states[2], expected[2])


def test_each_plan_stops_when_it_is_told_to():
    plans = [plan_of(seed=seed) for seed in range(4)]
    calls = []

    def on_epoch(index, state):
        calls.append((index, state.epoch))
        return not (index == 1 and state.epoch == 2)

    states = train(StackedEngine(3), plans, on_epoch=on_epoch)
    assert [state.stopped for state in states] == ["budget", "time", "budget", "budget"]
    assert sorted(calls) == [(i, e) for i in range(4) for e in range(1, 5) if i != 1 or e <= 2]
    assert same(states[3], train(StackedEngine(3), plans)[3])


def test_an_error_in_an_epoch_leaves_the_states_as_the_one_before(monkeypatch):
    plans, engine = [plan_of(seed=seed) for seed in range(2)], StackedEngine(2)
    expected, states = train(engine, plans, until_epoch=2), engine.start(plans, DATA)
    steps, whole = [], _training.StackedTraining._step

    def step(*args):
        steps.append(1)
        if len(steps) == 2 * 4 + 3:  # in the third epoch
            raise KeyboardInterrupt
        whole(*args)

    monkeypatch.setattr(_training.StackedTraining, "_step", step)
    with pytest.raises(KeyboardInterrupt):
        advance(engine, plans, states)
    assert all(same(one, other) for one, other in zip(expected, states, strict=True))


@pytest.mark.parametrize("methods", [(BatchNorm(), EMA(decay=0.9)), METHODS[1:]], ids=["batch norm", "none"])
def test_a_single_training_row(methods):
    # Without dropout: behind a normalization by zero variance, it makes rounding grow by 1e8, in the plain engine too.
    single = replace(plan_of(recipe(*methods), dtype=torch.float64), train_rows=np.arange(1))
    assert is_close(*train(PlainEngine(), [single]), *train(StackedEngine(2), [single]))


@pytest.mark.parametrize(("rows", "together"), [(1 << 26, 1), (14 * 7, 14 * 7), (14 * 7, 1 << 20)])
def test_rows_and_variants_are_scored_in_parts(rows, together, monkeypatch):
    plans = [plan_of(seed=seed, dtype=torch.float64) for seed in range(3)]
    monkeypatch.setattr(_scoring, "_MAX_CELLS", rows)
    monkeypatch.setattr(_scoring, "_CACHED_CELLS", together)
    for plain, stacked in zip(train(PlainEngine(), plans), train(StackedEngine(3), plans), strict=True):
        assert is_close(plain, stacked)


# What cannot be stacked


class Strange(LossMethod):
    def penalty(self, forward):
        return forward.outputs.sum()


def test_what_cannot_be_stacked_is_named(monkeypatch):
    engine = StackedEngine()
    assert engine.why_not(plan_of()) == ""
    assert engine.why_not(plan_of(recipe(Strange()))) == "method Strange"
    assert engine.why_not(plan_of(dtype=torch.bfloat16)) == "dtype bfloat16"
    smooth = plan_of(recipe(LabelSmoothing()), kind="regression")
    assert engine.why_not(smooth) == "method LabelSmoothing for a target that is a number"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert StackedEngine(device="cuda").why_not(plan_of()) == "device cuda"


@pytest.mark.parametrize("width", [0, -1, 2.5])
def test_widths_are_positive(width):
    with pytest.raises(ConfigError, match="`width` must be"):
        StackedEngine(width)


def test_an_engine_goes_on_with_its_latest_stack_and_never_with_a_stale_one():
    plans, engine = [plan_of(seed=seed) for seed in range(2)], StackedEngine(2)
    whole = train(StackedEngine(2), plans)
    parts = engine.start(plans, DATA)
    for epoch in (1, 2, 10):  # the same engine: it keeps what it has built
        advance(engine, plans, parts, until_epoch=epoch)
    assert all(map(same, whole, parts))
    # States that were put back are not what the latest stack left.
    early = train(StackedEngine(2), plans, until_epoch=1)
    again = [copy.deepcopy(state) for state in early]
    advance(engine, plans, early, until_epoch=2)
    advance(engine, plans, again, until_epoch=10)
    assert all(map(same, whole, again))


@pytest.mark.parametrize("methods", [(), METHODS, (GaussianNoise(std=0.1), Dropout(p=0.2), MaxNorm(max_norm=1.0))])
def test_steps_from_a_tape_have_the_same_bits(methods, monkeypatch):
    plans = [plan_of(recipe(*methods), seed=seed) for seed in range(3)]
    results = []
    for after in (10**9, 3):
        monkeypatch.setattr(_training, "Tapes", lambda after=after: Tapes(after=after))
        results.append(train(StackedEngine(3), plans))
    assert all(map(same, *results))
