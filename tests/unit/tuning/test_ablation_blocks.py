"""Blocks and what is measured on them."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from poise import ConfigError, DataError
from poise.tuning._ablate import _read
from poise.tuning._ablation_blocks import NUM_FOLDS, Trainer, check_enough, make_block
from poise.tuning._ablation_design import make_design

from ._ablations import TINY, make_table


def make_trainer(target="label", num_rows=120, recipe=TINY, **changes):
    table = make_table(num_rows).drop("y" if target == "label" else "label")
    data, task = _read(table, target)
    return Trainer(make_design(recipe, "leave-one-out").arms, data, task, seed=3, **changes)


@pytest.fixture(scope="module")
def trainer():
    return make_trainer()


@pytest.fixture(scope="module")
def runs(trainer):
    return trainer.run(list(trainer.arms), [0, 1], max_epochs=None, folder=None)


def test_the_parts_of_a_block_share_no_row_and_every_row_is_tested_once(trainer):
    blocks = [make_block(index, trainer.data, trainer.task, 3) for index in range(2 * NUM_FOLDS)]
    for one in blocks:
        rows = np.concatenate([one.train, one.val, one.test])
        assert sorted(rows.tolist()) == list(range(120))
        assert 23 <= len(one.test) <= 25
    for repeat in (blocks[:NUM_FOLDS], blocks[NUM_FOLDS:]):
        assert sorted(np.concatenate([one.test for one in repeat]).tolist()) == list(range(120))
    assert len({one.seed for one in blocks}) == len(blocks)
    assert blocks[0].test.tolist() != blocks[NUM_FOLDS].test.tolist()


def test_arms_share_rows_and_seed(trainer):
    block = make_block(4, trainer.data, trainer.task, 3)
    plans = [trainer.plan(arm, block, None) for arm in trainer.arms]
    assert len({plan.seed for plan in plans}) == 1
    assert len({plan.train_rows.tobytes() for plan in plans}) == 1
    assert len({plan.name for plan in plans}) == len(plans)


def test_every_training_is_measured(trainer, runs):
    assert [(run.arm, run.block) for run in runs] == [(arm, block) for block in (0, 1) for arm in trainer.arms]
    for run in runs:
        assert (run.epochs, run.max_epochs, run.stopped) == (3, 3, "budget")
        assert run.steps_an_epoch == 5  # 72 rows, batches of 16; the last one of 8
        assert run.seconds > 0
    json.dumps([asdict(run) for run in runs], allow_nan=False)


def test_the_bare_arm_reaches_its_own_target_in_its_best_epoch(runs):
    bare = [run for run in runs if run.arm == "none"]
    assert all(run.reached_epoch is not None for run in bare)
    assert all(run.reached_seconds <= run.seconds for run in bare)


@pytest.mark.parametrize("target", ["label", "y"])
def test_the_test_loss_is_that_of_the_predictions(target):
    trainer = make_trainer(target)
    plan = trainer.plan("all", make_block(0, trainer.data, trainer.task, 3), None)
    run = trainer.run(["all", "none"], [0], max_epochs=None, folder=None)[0]
    from poise.fleet import Fleet
    from poise.train import Predictor

    state = Fleet([plan], trainer.data).run()[0]
    rows = make_block(0, trainer.data, trainer.task, 3).test
    predicted = Predictor(plan.recipe, trainer.task, state).predict(trainer.data.table[rows])
    values = torch.from_numpy(trainer.data.target[rows])
    if target == "y":
        expected = ((predicted - values) ** 2 / state.target_scale**2).mean()
    else:
        expected = -predicted[torch.arange(len(rows)), values.long()].log().mean()
    assert run.test_loss == pytest.approx(float(expected), rel=1e-9)
    assert run.gap == pytest.approx(run.test_loss - state.history[-1].train_loss)


def test_an_arm_is_the_same_in_any_company(trainer, runs):
    alone = trainer.run(["none", "without Dropout"], [1], max_epochs=None, folder=None)[1]
    together = next(run for run in runs if (run.arm, run.block) == ("without Dropout", 1))
    timeless = {"seconds": 0.0, "reached_seconds": None}
    assert replace(alone, **timeless) == replace(together, **timeless)


def test_all_trainings_are_cut_alike(trainer):
    runs = trainer.run(["all", "none"], [0], max_epochs=2, folder=None)
    assert [run.max_epochs for run in runs] == [2, 2]


def test_time_that_is_ample_cuts_nothing_and_little_time_cuts_all_alike(trainer):
    assert trainer.affordable_epochs(5, 1000.0) is None
    long = make_trainer(recipe=replace(TINY, budget=replace(TINY.budget, max_epochs=100_000)))
    assert 1 <= long.affordable_epochs(5, 3.0) < 100_000


def test_no_time_at_all_is_refused():
    with pytest.raises(ConfigError, match="`time_limit` is too short"):
        make_trainer().affordable_epochs(5, 1e-9)


def test_progress_counts_the_trainings_that_ended():
    seen = []
    trainer = make_trainer(progress=seen.append)
    trainer.run(["all", "none"], [5, 6], max_epochs=1, folder=None)
    told = [one for one in seen if not one.note]
    assert [one.num_ended for one in told] == [1, 2, 3, 4]
    assert {(one.first_block, one.last_block, one.num_trainings) for one in told} == {(5, 6, 4)}


def test_a_training_that_diverges_has_no_loss():
    wild = replace(TINY, optimizer=replace(TINY.optimizer, lr=100.0), budget=replace(TINY.budget, max_epochs=40))
    trainer = make_trainer("y", recipe=wild)
    runs = trainer.run(["all", "none"], [0], max_epochs=None, folder=None)
    json.dumps([asdict(run) for run in runs], allow_nan=False)


def test_few_rows_are_refused():
    with pytest.raises(DataError, match="19 different rows are too few"):
        check_enough(replace(make_trainer(num_rows=20).data, table=make_table(19)))
