"""Isotonic calibration: scikit-learn's functions, mixed and normalized as said."""

import json

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from poise import ConfigError, DataError, Isotonic, ece, nll

from .test_temperature import make_data


@pytest.mark.parametrize("num_classes", [2, 4])
def test_it_is_one_rising_function_a_class(num_classes):
    p, y, w = make_data(0, num_classes)
    fitted = Isotonic.fit(p[:200], y[:200], weight=w[:200])
    columns = []
    for one in range(num_classes):
        rising = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
        rising.fit(p[:200, one], (y[:200] == one).astype(float), sample_weight=w[:200])
        columns.append((w[:200].sum() * rising.predict(p[200:, one]) + p[200:, one]) / (w[:200].sum() + 1))
    expected = np.stack(columns, axis=1)
    np.testing.assert_allclose(fitted.transform(p[200:]), expected / expected.sum(1, keepdims=True), rtol=1e-10)


def test_what_it_learnt_holds_on_other_rows():
    p, y, _ = make_data(0, 3, num_rows=4000)
    q = Isotonic.fit(p[:2000], y[:2000]).transform(p[2000:])
    assert ece(q, y[2000:]) < ece(p[2000:], y[2000:]) / 3
    assert nll(q, y[2000:]) < nll(p[2000:], y[2000:]) - 0.2


def test_two_classes_are_each_others_complement():
    p, y, _ = make_data(1, 2)
    fitted = Isotonic.fit(p, y)
    q = fitted.transform(p)
    np.testing.assert_allclose(q[:, 0] + q[:, 1], 1)
    np.testing.assert_allclose(
        q[:, 1], (300 * np.interp(p[:, 1], fitted.thresholds[1], fitted.values[1]) + p[:, 1]) / 301, atol=1e-12
    )


def test_nothing_becomes_impossible():
    p, y, _ = make_data(0, 3, num_rows=30)
    y[y == 2] = 1  # a class without rows
    q = Isotonic.fit(p, y).transform(p)
    assert q.min() > 0
    assert q[:, 2].max() < 0.2
    assert np.isfinite(Isotonic.fit([[1.0, 0.0]], [0]).transform([[0.0, 1.0], [0.5, 0.5]])).all()


def test_it_comes_back_from_plain_data():
    p, y, _ = make_data(0, 3, num_rows=50)
    fitted = Isotonic.fit(p, y)
    again = Isotonic.from_dict(json.loads(json.dumps(fitted.to_dict(), allow_nan=False)))
    assert again == fitted
    np.testing.assert_array_equal(again.transform(p), fitted.transform(p))


RISING = (0.0, 1.0)


@pytest.mark.parametrize(
    ("thresholds", "values", "num_rows", "message"),
    [
        ((RISING, (1.0, 0.0)), (RISING, RISING), 1, "`thresholds` must rise"),
        ((RISING, RISING), (RISING, (0.0, 1.5)), 1, "`values` must rise"),
        ((RISING, RISING), (RISING, (float("nan"), 1.0)), 1, "finite numbers"),
        ((RISING, RISING), (RISING, ("a", 1.0)), 1, "finite numbers"),
        ((RISING, ()), (RISING, ()), 1, "must rise"),
        ((RISING,), (RISING,), 1, "two classes"),
        ((RISING, RISING), (RISING, (0.0, 0.5, 1.0)), 1, "equally many"),
        ((RISING, RISING), (RISING, RISING), 0, "`num_rows`"),
        ([RISING, RISING], (RISING, RISING), 1, "`thresholds` must be tuple"),
    ],
)
def test_what_does_not_rise_is_refused(thresholds, values, num_rows, message):
    with pytest.raises(ConfigError, match=message):
        Isotonic(thresholds, values, num_rows)


def test_other_classes_are_refused():
    fitted = Isotonic.fit([[0.5, 0.5]], [0])
    with pytest.raises(DataError, match="2 classes"):
        fitted.transform([[0.2, 0.3, 0.5]])
