"""The contract of the arena, for modules."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from poise import PoiseWarning, ResumeError, TrainingError
from poise.fleet.modules import ModuleState, PlainLoop
from poise.methods import EMA, BatchNorm, Dropout, DropPath, EarlyStopping
from poise.tuning import ModuleArena

from ._modules import conv, cross_entropy, job, recipe

DOSES = {number: recipe(Dropout(p=0.1 + 0.1 * number), lr=1e-2) for number in range(3)}


def entered(recipes=None, **settings):
    arena = ModuleArena(settings.pop("job", None) or job(), **settings)
    arena.enter(DOSES if recipes is None else recipes)
    return arena


def alone(one, work=None, until=4):
    state = ModuleState()
    loop = PlainLoop(work or job(), one, state)
    while not state.stopped and state.epoch < until:
        loop.run_epoch()
    return state


def test_trials_train_until_their_targets():
    arena = entered()
    arena.advance({0: 1, 1: 2, 2: 2})
    assert [len(arena.curve(number)) for number in DOSES] == [1, 2, 2]
    arena.advance({0: 4})
    assert arena.curve(0) == pytest.approx(alone(DOSES[0]).val_losses, rel=1e-4)
    assert arena.engine(0) == "stacked, plain"
    assert arena.engine(1) == "stacked"
    assert all(arena.seconds(number) > 0 for number in DOSES)
    assert arena.reasons() == {}


def test_engines_agree():
    curves = []
    for engine in ("plain", "stacked"):
        arena = entered(engine=engine)
        arena.advance(dict.fromkeys(DOSES, 4))
        assert {arena.engine(number) for number in DOSES} == {engine}
        curves.append([arena.curve(number) for number in DOSES])
    for plain, stacked in zip(*curves, strict=True):
        assert plain == pytest.approx(stacked, rel=1e-4)


def test_a_stack_has_a_width():
    arena = entered({number: recipe() for number in range(5)}, width=2)
    arena.advance(dict.fromkeys(range(5), 1))
    assert [arena.engine(number) for number in range(5)] == ["stacked"] * 4 + ["plain"]
    assert len({tuple(arena.curve(number)) for number in range(4)}) == 1
    assert arena.reasons() == {4: "no other trial of their structure was trained at the time"}


def test_what_is_not_stacked_says_why():
    arena = entered({number: recipe() for number in range(2)}, job=job(conv))
    arena.advance({0: 1, 1: 1})
    assert arena.reasons() == dict.fromkeys((0, 1), "convolutions on a CPU gain nothing by it")
    assert arena.engine(0) == "plain"
    forced = entered({number: recipe() for number in range(2)}, job=job(conv), engine="stacked")
    forced.advance({0: 1, 1: 1})
    assert forced.engine(0) == "stacked"
    assert forced.curve(0) == pytest.approx(arena.curve(0), rel=1e-4)


def test_a_stack_that_fails_midway_goes_on_alone(monkeypatch):
    from poise.fleet.modules import StackedLoop

    run_epoch, calls = StackedLoop.run_epoch, []

    def fails_in_the_second(loop):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("no room")
        run_epoch(loop)

    monkeypatch.setattr(StackedLoop, "run_epoch", fails_in_the_second)
    arena = entered()
    arena.advance(dict.fromkeys(DOSES, 4))
    assert arena._entries[1].reason == "the stack failed: RuntimeError: no room"
    assert arena.engine(1) == "stacked, plain"
    assert arena.curve(1) == pytest.approx(alone(DOSES[1]).val_losses, rel=1e-4)


@pytest.mark.parametrize("engine", ["plain", "stacked"])
def test_a_trial_that_fails_is_marked_and_disturbs_no_other(engine):
    def fails_far_out(outputs, y):
        return cross_entropy(outputs, y) * torch.where(outputs.abs().max() > 30, float("nan"), 1.0)

    arena = entered({0: recipe(), 1: recipe(lr=100.0), 2: recipe()}, job=job(loss=fails_far_out), engine=engine)
    arena.advance({0: 2, 1: 2, 2: 2})
    assert [arena.failed(number) for number in range(3)] == [False, True, False]
    assert len(arena.curve(1)) < 2
    assert arena.curve(0) == pytest.approx(alone(recipe(), until=2).val_losses, rel=1e-4)
    arena.advance({1: 4})
    assert arena.failed(1)
    if not arena.curve(1):
        with pytest.raises(TrainingError, match="Trial 1 has no weights"):
            arena.model(1)


def test_early_stopping_is_no_failure():
    arena = entered({0: recipe(EarlyStopping(patience=1, min_delta=9.0))})
    arena.advance({0: 4})
    assert len(arena.curve(0)) == 2
    assert not arena.failed(0)


def test_models_have_the_weights_of_their_best_epoch():
    arena = entered({0: recipe(BatchNorm(), EMA(decay=0.8))})
    arena.advance({0: 4})
    model = arena.model(0).model
    assert not any(module.training for module in model.modules())
    with torch.no_grad():
        loss = float(cross_entropy(model(arena.job.val.x), arena.job.val.y))
    assert loss == pytest.approx(min(arena.curve(0)), rel=1e-5)
    assert arena.curve(0)[arena.best_epoch(0) - 1] == min(arena.curve(0))


def test_who_leaves_keeps_curve_and_what_predicts():
    arena = entered()
    arena.advance(dict.fromkeys(DOSES, 2))
    curve, before = arena.curve(0), arena.model(0).tensors()
    arena.leave([0])
    assert arena.curve(0) == curve
    assert all(torch.equal(before[name], tensor) for name, tensor in arena.model(0).tensors().items())
    arena.advance({0: 3})  # begins anew
    assert arena.curve(0) == pytest.approx(alone(DOSES[0], until=3).val_losses, rel=1e-4)


def test_noise_is_that_of_the_difference_of_the_two_best():
    work = job()
    x, y = (part.repeat(6, *[1] * (part.ndim - 1)) for part in (work.val.x, work.val.y))
    from dataclasses import replace

    from poise.fleet.modules import source_of

    arena = entered(job=replace(work, val=source_of((x, y), "val")))
    assert arena.noise() == 0
    arena.advance(dict.fromkeys(DOSES, 2))
    parts = []
    for number in DOSES:
        model = arena.model(number).model
        with torch.no_grad():
            parts.append([float(cross_entropy(model(a), b)) for a, b in zip(x.split(256), y.split(256), strict=True)])
    first, second = sorted(DOSES, key=lambda number: min(arena.curve(number)))[:2]
    difference = torch.tensor(parts[first]).double() - torch.tensor(parts[second]).double()
    assert arena.noise() == pytest.approx(float(difference.std()) / len(difference) ** 0.5, rel=1e-3)


def test_a_method_without_a_place_is_told_once():
    arena = entered({number: recipe(DropPath(p=0.1 * (1 + number))) for number in range(3)})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        arena.advance(dict.fromkeys(range(3), 1))
    told = [one for one in caught if issubclass(one.category, PoiseWarning)]
    assert len(told) == 1
    assert "DropPath found no place" in str(told[0].message)


# States on disk


def test_it_goes_on_where_a_process_ended(tmp_path):
    first = entered(folder=tmp_path)
    first.advance(dict.fromkeys(DOSES, 2))
    second = entered(folder=tmp_path)
    epochs = []
    plain = PlainLoop.run_epoch

    class Counting(ModuleArena):
        def _save_now_and_then(self, number):
            epochs.append(number)
            super()._save_now_and_then(number)

    second.__class__ = Counting
    second.advance(dict.fromkeys(DOSES, 2))
    assert epochs == []
    assert [second.curve(number) for number in DOSES] == [first.curve(number) for number in DOSES]
    second.advance(dict.fromkeys(DOSES, 4))
    assert len(epochs) == 2 * len(DOSES)
    straight = entered()
    straight.advance(dict.fromkeys(DOSES, 4))
    for number in DOSES:
        assert second.curve(number) == pytest.approx(straight.curve(number), rel=1e-5)
    assert PlainLoop.run_epoch is plain


def test_a_resumed_search_sees_of_a_trial_what_it_asked_for(tmp_path):
    first = entered(folder=tmp_path)
    first.advance(dict.fromkeys(DOSES, 4))
    second = entered(folder=tmp_path)
    assert second.curve(0) == []
    second.advance({0: 1})
    assert second.curve(0) == first.curve(0)[:1]
    assert not second.failed(0)


@pytest.mark.parametrize("engine", ["plain", "stacked"])
def test_an_interrupt_keeps_what_was_trained(tmp_path, engine):
    work, calls = job(), []

    def counting(outputs, y):
        calls.append(1)
        if len(calls) > (30 if engine == "plain" else 12):
            raise KeyboardInterrupt
        return cross_entropy(outputs, y)

    from dataclasses import replace

    arena = entered(job=replace(work, loss=counting), folder=tmp_path, engine=engine)
    with pytest.raises(KeyboardInterrupt):
        arena.advance(dict.fromkeys(DOSES, 4))
    again = entered(folder=tmp_path, engine=engine)
    kept = {number: again._entries[number].state.epoch for number in DOSES}
    assert 0 < sum(kept.values()) < 12
    again.advance(dict.fromkeys(DOSES, 4))
    for number, one in DOSES.items():
        assert again.curve(number) == pytest.approx(alone(one).val_losses, rel=1e-4)


def test_another_recipe_under_the_same_number_is_refused(tmp_path):
    entered(folder=tmp_path).advance(dict.fromkeys(DOSES, 1))
    with pytest.raises(ResumeError, match="Trial 0 of the folder has another recipe"):
        ModuleArena(job(), folder=tmp_path).enter({0: recipe(BatchNorm())})


def test_a_model_of_many_layers_is_kept_small(tmp_path):
    arena = entered(
        {0: recipe()}, folder=tmp_path, job=job(lambda: nn.Sequential(nn.Linear(6, 200), nn.Linear(200, 2)))
    )
    arena.advance({0: 4})  # to its end
    (file,) = tmp_path.glob("*.safetensors")
    assert file.stat().st_size < 1.5 * 4 * (7 * 200 + 201 * 2)
