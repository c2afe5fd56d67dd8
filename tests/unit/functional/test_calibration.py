"""Log loss, Brier score and calibration error against loops and scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from poise import ConfigError, DataError, brier, ece, nll


def make_data(seed, num_rows=60, num_classes=4):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(num_classes, 0.5), num_rows)
    return p, rng.integers(0, num_classes, num_rows), rng.uniform(0, 2, num_rows)


def plain_ece(p, y, w, num_bins):
    total = 0.0
    for index in range(num_bins):
        rows = [i for i in range(len(y)) if index / num_bins < max(p[i]) <= (index + 1) / num_bins]
        weight = sum(w[i] for i in rows)
        if weight:
            accuracy = sum(w[i] * (p[i].argmax() == y[i]) for i in rows) / weight
            confidence = sum(w[i] * max(p[i]) for i in rows) / weight
            total += weight / sum(w) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("num_bins", [1, 7, 15])
def test_calibration_error_is_that_of_a_loop(seed, num_bins):
    p, y, w = make_data(seed)
    assert ece(p, y, num_bins=num_bins, weight=w) == pytest.approx(plain_ece(p, y, w, num_bins), abs=1e-14)
    assert ece(p, y, num_bins=num_bins) == pytest.approx(plain_ece(p, y, np.ones(60), num_bins), abs=1e-14)


def test_log_loss_and_brier_score_are_scikit_learns():
    p, y, w = make_data(0)
    assert nll(p, y, weight=w) == pytest.approx(log_loss(y, p, sample_weight=w, labels=range(4)))
    hot = np.eye(4)[y]
    assert brier(p, y, weight=w) == pytest.approx(np.average(np.square(p - hot).sum(1), weights=w))
    p, y, w = make_data(1, num_classes=2)
    # scikit-learn halves it for two classes.
    assert brier(p, y, weight=w) == pytest.approx(2 * brier_score_loss(y, p[:, 1], sample_weight=w))


def test_values_worked_out_by_hand():
    p = [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]
    assert brier(p, [0, 0, 0]) == pytest.approx((0 + 2 + 0.5) / 3)
    assert nll(p, [0, 1, 0]) == pytest.approx(math.log(2) / 3)
    assert nll(p, [1, 1, 0]) == pytest.approx((-math.log(1e-15) + math.log(2)) / 3)
    assert ece(p, [0, 0, 1]) == pytest.approx(2 / 3 * 0.5 + 1 / 3 * 0.5)
    assert ece([[0.0, 1.0]] * 4, [1] * 4) == 0.0


def test_a_row_of_weight_two_is_the_row_twice():
    p, y, _ = make_data(2)
    w = np.random.default_rng(0).integers(0, 3, 60)
    for metric in (nll, brier, ece):
        assert metric(p, y, weight=w) == pytest.approx(metric(p.repeat(w, axis=0), y.repeat(w)))


def test_a_calibrated_model_has_no_calibration_error_with_many_rows():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), 200_000)
    y = (p.cumsum(1) < rng.random((200_000, 1))).sum(1)
    assert ece(p, y) < 0.005
    assert ece(p**2 / (p**2).sum(1, keepdims=True), y) > 0.05


@pytest.mark.parametrize("metric", [nll, brier, ece])
def test_what_does_not_fit_is_refused(metric):
    p = [[0.5, 0.5], [0.2, 0.8]]
    for target, weight, name in (([0], None, "target"), ([0, 2], None, "target"), ([0, 1], [1, -1], "weight")):
        with pytest.raises(DataError, match=f"`{name}`"):
            metric(p, target, weight=weight)
    with pytest.raises(DataError, match="`probabilities`"):
        metric([[0.5, 0.7], [0.2, 0.8]], [0, 1])


def test_bins_are_counted():
    with pytest.raises(ConfigError, match="`num_bins`"):
        ece([[0.5, 0.5]], [0], num_bins=0)
