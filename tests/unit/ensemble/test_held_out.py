"""Losses and scores with intervals: their values, and how often the interval holds the truth."""

import numpy as np
import pytest

from poise._random import Key
from poise.ensemble._held_out import Estimate, measure, row_losses

from ._data import TASKS


def test_intervals_hold_the_true_loss_about_as_often_as_they_say(monkeypatch):
    monkeypatch.setattr("poise.ensemble._held_out._MAX_RESAMPLES", 300)
    rng = np.random.default_rng(0)
    hits = 0
    for run in range(200):
        p = rng.uniform(0.05, 0.95, 150)
        target = (rng.random(150) < p).astype(float)
        loss, _ = measure(TASKS["binary"], np.stack([1 - p, p], 1), target, np.ones(150), scale=1.0, key=Key(run))
        grid = np.linspace(0.05, 0.95, 10001)
        truth = float((-grid * np.log(grid) - (1 - grid) * np.log(1 - grid)).mean())
        hits += truth in loss
    assert 0.89 <= hits / 200 <= 0.99


def test_interval_widths_match_theory_for_a_mean():
    rng = np.random.default_rng(1)
    target = rng.normal(size=400)
    loss, score = measure(TASKS["regression"], np.zeros(400), target, np.ones(400), scale=1.0, key=Key(0))
    errors = target**2
    assert loss.value == pytest.approx(errors.mean())
    assert loss.high - loss.low == pytest.approx(2 * 1.96 * errors.std() / 20, rel=0.1)
    assert score.value == pytest.approx(1 - errors.mean() / target.var())


def test_weights_count_as_copies():
    rng = np.random.default_rng(2)
    p, target = rng.uniform(0.1, 0.9, 30), rng.integers(0, 2, 30).astype(float)
    copies = rng.integers(1, 4, 30)
    rows = np.repeat(np.arange(30), copies)
    proba = np.stack([1 - p, p], 1)
    once = measure(TASKS["binary"], proba, target, copies.astype(float), scale=1.0, key=Key(0))
    often = measure(TASKS["binary"], proba[rows], target[rows], np.ones(len(rows)), scale=1.0, key=Key(0))
    assert [one.value for one in once] == pytest.approx([one.value for one in often])


def test_a_constant_target_has_a_score_of_one_or_zero():
    for prediction, expected in ((5.0, 1.0), (4.0, 0.0)):
        score = measure(
            TASKS["regression"], np.full(9, prediction), np.full(9, 5.0), np.ones(9), scale=1.0, key=Key(0)
        )[1]
        assert score.value == expected


def test_a_probability_of_zero_costs_finitely_much():
    assert row_losses(TASKS["binary"], np.array([[1.0, 0.0]]), np.array([1.0]))[0] == pytest.approx(34.54, abs=0.01)


def test_an_estimate_holds_what_lies_between_its_ends():
    assert 0.5 in Estimate(0.4, 0.3, 0.5)
    assert 0.51 not in Estimate(0.4, 0.3, 0.5)
