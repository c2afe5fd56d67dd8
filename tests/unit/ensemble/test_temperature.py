"""Temperature: the optimum of a convex loss, by other means."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from poise import ConfigError, DataError, Temperature, ece, nll

from .test_climb import softmax


def make_data(seed, num_classes, sharpness=3.0, num_rows=300):
    """Logits that are `sharpness` times those that the classes are drawn from."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num_rows, num_classes))
    y = (softmax(logits).cumsum(1) < rng.random((num_rows, 1))).sum(1)
    return softmax(sharpness * logits), y, rng.uniform(0.2, 2, num_rows)


@pytest.mark.parametrize("num_classes", [2, 7])
@pytest.mark.parametrize("sharpness", [0.3, 1.0, 5.0])
@pytest.mark.parametrize("prior", [0.0, 20.0])
def test_it_is_the_minimum_of_the_log_loss(num_classes, sharpness, prior):
    p, y, w = make_data(0, num_classes, sharpness)

    def loss(log_value):
        q = softmax(np.log(p) / np.exp(log_value))
        soft = -(p * np.log(q)).sum(1) @ w / w.sum()
        return nll(q, y, weight=w) + prior / w.sum() * soft

    best = minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-9})
    assert Temperature.fit(p, y, weight=w, prior=prior).value == pytest.approx(np.exp(best.x), rel=1e-5)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("num_classes", [2, 3, 10])
@pytest.mark.parametrize("sharpness", [0.2, 1.0, 8.0])
def test_its_own_rows_never_become_worse(seed, num_classes, sharpness):
    p, y, _ = make_data(seed, num_classes, sharpness, num_rows=15)
    assert nll(Temperature.fit(p, y).transform(p), y) <= nll(p, y) + 1e-12


def test_what_it_learnt_holds_on_other_rows():
    p, y, _ = make_data(0, 5, num_rows=1000)
    fitted = Temperature.fit(p[:500], y[:500])
    assert fitted.value == pytest.approx(3, rel=0.15)
    q = fitted.transform(p[500:])
    assert nll(q, y[500:]) < nll(p[500:], y[500:]) - 0.2
    assert ece(q, y[500:]) < ece(p[500:], y[500:]) / 2
    np.testing.assert_array_equal(q.argmax(1), p[500:].argmax(1))
    np.testing.assert_allclose(q.sum(1), 1)


def test_rows_that_are_all_right_keep_a_finite_temperature():
    p = softmax(np.eye(3)[[0, 1, 2, 0]] * 2.0)
    believed = Temperature.fit(p, [0, 1, 2, 0]).value
    assert 0.2 < believed < 1
    assert Temperature.fit(p, [0, 1, 2, 0], prior=0).value < 0.1
    assert Temperature.fit(p, [1, 2, 0, 1], prior=0).value == pytest.approx(100, rel=1e-3)


def test_probabilities_of_zero_and_one_are_no_trouble():
    p = np.array([[1.0, 0.0]] * 10)
    fitted = Temperature.fit(p, [0] * 9 + [1])
    assert fitted.transform(p)[0, 0] == pytest.approx(0.9, abs=0.02)


def test_undecided_rows_leave_it_at_one():
    assert Temperature.fit(np.full((5, 3), 1 / 3), [0, 1, 2, 0, 0]).value == 1.0


def test_weights_repeat_rows():
    p, y, _ = make_data(1, 3, num_rows=40)
    w = np.random.default_rng(0).integers(0, 3, 40)
    twice = Temperature.fit(p.repeat(w, axis=0), y.repeat(w))
    assert Temperature.fit(p, y, weight=w).value == pytest.approx(twice.value)


def test_one_is_the_identity_and_it_comes_back_from_plain_data():
    p, _, _ = make_data(0, 4)
    np.testing.assert_allclose(Temperature(1.0).transform(p), p, atol=1e-14)
    assert Temperature.from_dict(Temperature(1.7).to_dict()) == Temperature(1.7)


def test_what_does_not_fit_is_refused():
    for value in (0.0, -1.0, 101.0, "1", float("nan")):
        with pytest.raises(ConfigError, match="`value`"):
            Temperature(value)
    with pytest.raises(ConfigError, match="`prior`"):
        Temperature.fit([[0.5, 0.5]], [0], prior=-1)
    with pytest.raises(DataError, match="`target`"):
        Temperature.fit([[0.5, 0.5]], [2])
    with pytest.raises(DataError, match="`probabilities`"):
        Temperature(2.0).transform([[2.0, -1.0]])
