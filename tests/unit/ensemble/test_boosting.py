"""Boosting: every round by hand, and what ends it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from poise import Boosted, Boosting, ConfigError, TrainingError
from poise.ensemble._additive import AdditiveLoss
from poise.methods import BatchNorm
from poise.recipe import AdamW

from ._data import FIXED, KINDS, TASKS, make_data

RECIPE = replace(FIXED, methods=(BatchNorm(),), optimizer=AdamW(lr=2e-2))
BOOSTING = Boosting(num_rounds=5, learning_rate=0.3, max_epochs=3, width=8, depth=1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_sum_by_hand_has_the_losses_that_were_written_down(kind):
    data, task = make_data(kind), TASKS[kind]
    data.weight[:] = np.random.default_rng(0).uniform(0.5, 2, 80)
    boosted = BOOSTING.train(data, task, RECIPE).predictor
    plan = BOOSTING.train(data, task, RECIPE).members[0].plan
    values = torch.from_numpy((data.target - boosted.target_mean) / boosted.target_scale)
    loss = AdditiveLoss(task, task.targets(values), torch.from_numpy(data.weight))
    outputs = torch.tensor(boosted.base, dtype=torch.float64).repeat(80, 1)
    for stage in boosted.stages:
        said = [one.predict(data.table) for one in stage.networks]
        assert len(said) == task.num_outputs
        direction = torch.stack(said, 1)
        train, val = (torch.from_numpy(rows) for rows in (plan.train_rows, plan.val_rows))
        best = loss.take(train).best_step(outputs[train], direction[train])
        assert stage.step == pytest.approx(0.3 * best, rel=1e-5)
        outputs += stage.step * direction
        assert stage.train_loss == pytest.approx(loss.take(train).value(outputs[train]), rel=1e-9)
        assert stage.val_loss == pytest.approx(loss.take(val).value(outputs[val]), rel=1e-9)
    torch.testing.assert_close(boosted.outputs(data.table), outputs, rtol=1e-9, atol=1e-9)
    expected = task.predict(outputs)
    if kind == "regression":
        expected = expected * boosted.target_scale + boosted.target_mean
    torch.testing.assert_close(boosted.predict(data.table), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_networks_learn_the_residuals_of_what_came_before(kind):
    data, task = make_data(kind, num_rows=200, noise=0.1), TASKS[kind]
    boosted = replace(BOOSTING, num_rounds=2, max_epochs=30).train(data, task, RECIPE).predictor
    first = Boosted(
        task, boosted.base, boosted.stages[:1],
        target_mean=boosted.target_mean, target_scale=boosted.target_scale,
    )  # fmt: skip
    values = torch.from_numpy((data.target - boosted.target_mean) / boosted.target_scale)
    loss = AdditiveLoss(task, task.targets(values), torch.ones(200, dtype=torch.float64))
    before = [loss.base().repeat(200, 1), first.outputs(data.table)]
    for outputs, stage in zip(before, boosted.stages, strict=True):
        residuals = loss.residuals(outputs)
        for output, network in enumerate(stage.networks):
            together = torch.stack([network.predict(data.table), residuals[:, output]])
            assert torch.corrcoef(together)[0, 1] > 0.3


def test_more_rounds_learn_more():
    data = make_data("regression", num_rows=300, noise=0.05)
    boosted = Boosting(num_rounds=12, learning_rate=0.3, width=8).train(data, TASKS["regression"], RECIPE).predictor
    losses = [stage.train_loss for stage in boosted.stages]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.3 * losses[0]


def test_the_best_round_is_the_last_that_predicts():
    data = make_data(noise=3.0)
    strategy = Boosting(num_rounds=60, patience=4, learning_rate=1.0, max_epochs=20, width=16)
    seen = []
    ensemble = strategy.train(data, TASKS["binary"], RECIPE, on_epoch=lambda index, *_: seen.append(index))
    stages = ensemble.predictor.stages
    assert stages[-1].val_loss == min(stage.val_loss for stage in stages)
    assert max(seen) + 1 >= len(stages) + 4
    assert max(seen) < 59
    assert len(ensemble.members) == len(stages)


def test_a_folder_continues_with_the_rounds_that_are_done(tmp_path):
    data = make_data("multiclass")
    one = BOOSTING.train(data, TASKS["multiclass"], RECIPE)
    seen = []
    short = replace(BOOSTING, num_rounds=2).train(data, TASKS["multiclass"], RECIPE, folder=tmp_path)
    whole = BOOSTING.train(
        data, TASKS["multiclass"], RECIPE, folder=tmp_path, on_epoch=lambda index, *_: seen.append(index)
    )
    assert len(short.predictor.stages) <= 2
    assert min(seen) == 6  # two rounds of three networks were done
    assert torch.equal(one.predictor.predict(data.table), whole.predictor.predict(data.table))


def test_rows_of_weight_zero_change_nothing():
    data = make_data()
    data.weight[:20] = 0
    one = BOOSTING.train(data, TASKS["binary"], RECIPE).predictor.predict(data.table)
    data.target[:20] = 1 - data.target[:20]
    assert torch.equal(one, BOOSTING.train(data, TASKS["binary"], RECIPE).predictor.predict(data.table))


def test_a_constant_target_is_said():
    data = make_data("regression")
    data.target[:] = 3.0
    with pytest.raises(TrainingError, match="None of 5 rounds of boosting lowered the training loss"):
        BOOSTING.train(data, TASKS["regression"], RECIPE)


def test_rounds_that_help_nothing_are_skipped_and_said(monkeypatch):
    data = make_data()
    plain = AdditiveLoss.best_step
    calls = []

    def best_step(self, *args):
        calls.append(1)
        return 0.0 if len(calls) in (1, 3) else plain(self, *args)

    monkeypatch.setattr(AdditiveLoss, "best_step", best_step)
    ensemble = BOOSTING.train(data, TASKS["binary"], replace(RECIPE, budget=FIXED.budget))
    assert len(calls) == 5
    assert ensemble.notes[0] == "2 of 5 rounds did not lower the training loss and add nothing."
    assert len(ensemble.predictor.stages) <= 3


def test_noise_alone_is_said():
    data = make_data()
    data.target[:] = np.random.default_rng(5).integers(0, 2, 80)
    fierce = Boosting(num_rounds=2, learning_rate=1.0, max_epochs=40)
    ensemble = fierce.train(data, TASKS["binary"], RECIPE)
    assert ensemble.notes == ("No round has a lower validation loss than the best constant; one is kept.",)
    assert len(ensemble.predictor.stages) == 1


@pytest.mark.parametrize(
    "settings",
    [{"num_rounds": 0}, {"learning_rate": 0.0}, {"learning_rate": 1.1}, {"patience": 0}, {"width": 0}, {"depth": 1.5}],
)
def test_settings_are_checked(settings):
    with pytest.raises(ConfigError, match=f"`{next(iter(settings))}`"):
        Boosting(**settings)
