"""The winner's curse, seen and taken back."""

import numpy as np
import pytest

from poise import ConfigError, DataError
from poise._random import Key
from poise.ensemble import select_bias_corrected


def plain(losses, weight, num_resamples, key):
    """One resample after the other, row by row."""
    num_rows = losses.shape[1]
    scores, winners = [], []
    for step in range(num_resamples):
        drawn = key.at(step).integers(num_rows, num_rows).numpy()
        means = [np.average(one[drawn], weights=weight[drawn]) for one in losses]
        winner = int(np.argmin(means))
        left = np.setdiff1d(np.arange(num_rows), drawn)
        winners.append(winner)
        scores.append(np.average(losses[winner, left], weights=weight[left]))
    return winners, scores


def test_it_is_the_plain_loop():
    rng = np.random.default_rng(0)
    losses, weight = rng.exponential(size=(5, 20)), rng.uniform(0.5, 2, 20)
    found = select_bias_corrected(losses, weight=weight, num_resamples=50, coverage=0.8, key=Key(3))
    winners, scores = plain(losses, weight, 50, Key(3))
    assert found.corrected == pytest.approx(np.mean(scores))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(scores, [0.1, 0.9])))
    np.testing.assert_allclose(found.wins, np.bincount(winners, minlength=5) / 50)
    means = losses @ weight / weight.sum()
    assert (found.chosen, found.naive) == (means.argmin(), pytest.approx(means.min()))


def test_chunks_change_nothing(monkeypatch):
    losses = np.random.default_rng(0).exponential(size=(5, 30))
    whole = select_bias_corrected(losses, num_resamples=25)
    monkeypatch.setattr("poise.ensemble._bias_corrected._CHUNK", 60)
    parts = select_bias_corrected(losses, num_resamples=25)
    assert (parts.corrected, parts.low, parts.high) == (whole.corrected, whole.low, whole.high)


def test_equal_candidates_are_not_flattered():
    """Sixty candidates of true loss 1: the best seems better by luck alone."""
    found = [
        select_bias_corrected(np.random.default_rng(seed).exponential(size=(60, 100)), num_resamples=200, key=Key(seed))
        for seed in range(40)
    ]
    naive, corrected = (np.array([getattr(one, name) for one in found]) for name in ("naive", "corrected"))
    assert naive.mean() < 0.85
    assert abs(corrected.mean() - 1) < 3 * corrected.std() / np.sqrt(40)
    assert np.mean([one.low <= 1 <= one.high for one in found]) >= 0.9


def test_a_clear_winner_keeps_its_loss():
    rng = np.random.default_rng(0)
    losses = np.stack([rng.exponential(0.1, 400), *rng.exponential(5, (9, 400))])
    found = select_bias_corrected(losses)
    assert found.chosen == 0
    assert found.wins[0] == 1
    assert found.corrected == pytest.approx(found.naive, rel=0.02)


def test_two_rows_and_rows_of_weight_zero():
    assert np.isfinite(select_bias_corrected([[1.0, 2.0], [2.0, 1.0]]).corrected)
    losses = np.random.default_rng(0).exponential(size=(3, 8))
    weight = [1, 1, 1, 1, 0, 0, 0, 0]
    assert select_bias_corrected(losses, weight=weight).corrected == select_bias_corrected(losses[:, :4]).corrected


@pytest.mark.parametrize("settings", [{"num_resamples": 9}, {"coverage": 1.0}, {"coverage": 0}, {"key": 1}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=f"`{next(iter(settings))}`"):
        select_bias_corrected([[1.0, 2.0]], **settings)


def test_arrays_that_do_not_fit_are_refused():
    for losses, weight, message in (
        ([1.0, 2.0], None, "`losses` must have 2 axes"),
        ([[1.0, np.nan]], None, "`losses` holds NaN"),
        ([[1.0, 2.0]], [1, 2, 3], "`weight`"),
        ([[1.0, 2.0]], [1, 0], "Only one row counts"),
    ):
        with pytest.raises(DataError, match=message):
            select_bias_corrected(losses, weight=weight)
