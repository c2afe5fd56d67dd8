"""Bagging: real bootstrap samples, and out-of-bag scores of rows that nobody has seen."""

import numpy as np
import pytest
import torch

from poise import Bagging, ConfigError, DataError
from poise.train import Dataset

from ._data import FIXED, KINDS, STOPPING, TASKS, make_data, seen_by


@pytest.mark.parametrize("kind", KINDS)
def test_out_of_bag_predictions_are_means_over_members_that_never_saw_the_row(kind):
    data = make_data(kind)
    ensemble = Bagging(num_members=6).train(data, TASKS[kind], STOPPING, seed=2)
    judged = ensemble.held_out
    said = ensemble.predictor.member_predictions(data.table).numpy()
    for row in range(data.table.height):
        unaware = [index for index, member in enumerate(ensemble.members) if row not in seen_by(member)]
        assert judged.num_members[row] == len(unaware)
        expected = said[unaware].mean(0) if unaware else np.full_like(said[0, row], np.nan)[None]
        np.testing.assert_allclose(
            judged.predictions[row], expected[row] if unaware else expected[0], rtol=1e-10, atol=1e-12
        )
    assert judged.is_untouched


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_score_are_those_of_the_out_of_bag_predictions(kind):
    data = make_data(kind)
    data.weight[:] = np.random.default_rng(1).uniform(0.5, 2, len(data.weight))
    judged = Bagging(num_members=12).train(data, TASKS[kind], FIXED).held_out
    seen = judged.num_members > 0
    predictions, target, weight = judged.predictions[seen], data.target[seen], data.weight[seen]
    if kind == "regression":
        mean = np.average(data.target, weights=data.weight)
        errors = (predictions - target) ** 2
        loss = np.average(errors, weights=weight) / np.average((data.target - mean) ** 2, weights=data.weight)
        around = np.average((target - np.average(target, weights=weight)) ** 2, weights=weight)
        score = 1 - np.average(errors, weights=weight) / around
    else:
        picked = predictions[np.arange(len(target)), target.astype(int)]
        loss = np.average(-np.log(picked), weights=weight)
        score = np.average(predictions.argmax(1) == target, weights=weight)
    assert judged.loss.value == pytest.approx(loss)
    assert judged.score.value == pytest.approx(score)
    assert judged.loss.low < loss < judged.loss.high
    assert judged.score.low <= score <= judged.score.high
    assert loss in judged.loss


def test_bags_are_bootstrap_samples():
    data = make_data(num_rows=400)
    members = Bagging(num_members=20).train(data, TASKS["binary"], FIXED).members
    counts = np.array([np.bincount(one.plan.train_rows, minlength=400) for one in members])
    assert (counts.sum(1) == 400).all()
    shares = (counts == 0).mean(), (counts == 1).mean(), (counts == 2).mean()
    assert shares == pytest.approx((np.exp(-1), np.exp(-1), np.exp(-1) / 2), abs=0.02)
    assert len({tuple(row) for row in counts}) == 20
    for one in members:  # without early stopping the rest is only watched
        assert set(one.plan.val_rows) == set(range(400)) - set(one.plan.train_rows)


def test_rows_that_are_watched_change_nothing():
    data = make_data("regression")
    first = Bagging(num_members=3).train(data, TASKS["regression"], FIXED)
    other = Dataset(data.table, data.schema, data.target.copy(), data.weight)
    member = first.members[0].plan
    other.target[member.val_rows] += 50.0
    second = Bagging(num_members=3).train(other, TASKS["regression"], FIXED)
    assert torch.equal(*(one.members[0].state.tensors["served"] for one in (first, second)))


def test_a_recipe_that_stops_early_looks_into_the_bag():
    data = make_data()
    for member in Bagging(num_members=5).train(data, TASKS["binary"], STOPPING).members:
        train, val = set(member.plan.train_rows), set(member.plan.val_rows)
        assert not train & val
        assert len(val) == len(member.plan.val_rows) > 0
        assert 0.1 < len(val) / (len(train) + len(val)) < 0.3
        assert 0.5 < (len(train) + len(val)) / 80 < 0.75


def test_every_bag_holds_every_class():
    data = make_data("multiclass", num_rows=60)
    data.target[:] = np.where(np.arange(60) < 2, 2, np.arange(60) % 2)
    for member in Bagging(num_members=30).train(data, TASKS["multiclass"], STOPPING).members:
        assert set(data.target[member.plan.train_rows]) == {0, 1, 2}


def test_classes_too_rare_for_any_bag_are_said():
    data = make_data(num_rows=2)
    data.target[:] = [0, 1]
    with pytest.raises(DataError, match="None of 1000 bootstrap samples of 2 rows held every class and left a row out"):
        Bagging(num_members=2).train(data, TASKS["binary"], FIXED)


def test_eight_rows_are_enough():
    data = make_data("regression", num_rows=8)
    ensemble = Bagging(num_members=4).train(data, TASKS["regression"], STOPPING)
    assert np.isfinite(ensemble.held_out.loss.value)


def test_rows_in_every_bag_are_said():
    ensemble = Bagging(num_members=2).train(make_data(), TASKS["binary"], FIXED)
    missed = int((ensemble.held_out.num_members == 0).sum())
    assert missed > 10
    assert ensemble.notes == (
        f"{missed} of 80 rows are in every bag and have no out-of-bag prediction: use more members.",
    )
    assert np.isnan(ensemble.held_out.predictions[ensemble.held_out.num_members == 0]).all()


def test_one_member_is_no_ensemble():
    with pytest.raises(ConfigError, match="`num_members`"):
        Bagging(num_members=1)
