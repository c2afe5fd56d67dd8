"""Intervals: their coverage over many splits, and their rule by hand."""

import json
import math

import numpy as np
import pytest

from poise import ConfigError, ConformalIntervals, DataError, PoiseWarning


def noisy(rng, num_rows):
    """A model whose errors grow with its input: predictions, values and the true spread."""
    x = rng.uniform(0.2, 2, num_rows)
    return np.sin(x), np.sin(x) + x * rng.standard_t(4, num_rows), x


@pytest.mark.parametrize("is_scaled", [False, True])
def test_nine_of_ten_are_covered_over_many_splits(is_scaled):
    covered, widths = [], []
    for seed in range(100):
        prediction, target, spread = noisy(np.random.default_rng(seed), 1000)
        scale = spread if is_scaled else None
        fitted = ConformalIntervals.fit(prediction[:300], target[:300], scale=None if scale is None else scale[:300])
        low, high = fitted.predict(prediction[300:], scale=None if scale is None else scale[300:])
        covered.append(np.mean((low <= target[300:]) & (target[300:] <= high)))
        widths.append(np.corrcoef(high - low, spread[300:])[0, 1] if is_scaled else np.ptp(high - low))
    assert np.mean(covered) == pytest.approx(0.9, abs=0.01)
    assert np.mean(widths) == pytest.approx(1 if is_scaled else 0, abs=1e-9)


def test_few_rows_cover_as_promised_too():
    """19 rows and 90 %: the 18th of 19 scores, which covers 18 / 20 of all new ones."""
    rng = np.random.default_rng(0)
    scores = rng.exponential(size=(20_000, 20))
    radii = np.sort(scores[:, :19], axis=1)[:, 17]
    assert np.mean(scores[:, 19] <= radii) == pytest.approx(0.9, abs=0.007)
    assert ConformalIntervals.fit(np.zeros(19), scores[0, :19], coverage=0.9).radius == radii[0]


def test_a_scale_multiplies():
    fitted = ConformalIntervals.fit([0.0, 0.0, 0.0], [1.0, 4.0, -9.0], coverage=0.5, scale=[1.0, 2.0, 3.0])
    assert fitted == ConformalIntervals(2.0, 0.5, 3, True)
    low, high = fitted.predict([10.0, 20.0], scale=[1.0, 0.5])
    np.testing.assert_array_equal(low, [8, 19])
    np.testing.assert_array_equal(high, [12, 21])


def test_too_few_rows_give_infinite_intervals_and_say_so():
    with pytest.warns(PoiseWarning, match="8 rows cannot vouch for a coverage of 0.9.*It takes 9 rows"):
        fitted = ConformalIntervals.fit(np.zeros(8), np.ones(8))
    low, high = fitted.predict([1.0])
    assert (low[0], high[0]) == (-math.inf, math.inf)
    again = ConformalIntervals.from_dict(json.loads(json.dumps(fitted.to_dict(), allow_nan=False)))
    assert again == fitted


def test_what_does_not_fit_is_refused():
    scaled = ConformalIntervals(1.0, 0.9, 20, True)
    plain = ConformalIntervals(1.0, 0.9, 20, False)
    with pytest.raises(ConfigError, match="need a `scale`"):
        scaled.predict([1.0])
    with pytest.raises(ConfigError, match="fitted without a `scale`"):
        plain.predict([1.0], scale=[1.0])
    for call, name in (
        (lambda: ConformalIntervals.fit([1.0, 2.0], [1.0]), "target"),
        (lambda: ConformalIntervals.fit([1.0, np.nan], [1.0, 2.0]), "prediction"),
        (lambda: ConformalIntervals.fit([1.0], [1.0], scale=[0.0]), "scale"),
        (lambda: scaled.predict([1.0], scale=[1.0, 2.0]), "scale"),
    ):
        with pytest.raises(DataError, match=f"`{name}`"):
            call()
    for wrong in ({"coverage": 0.0}, {"coverage": 1}):
        with pytest.raises(ConfigError, match="`coverage`"):
            ConformalIntervals.fit([1.0], [1.0], **wrong)


@pytest.mark.parametrize(
    ("values", "name"),
    [((-1.0, 0.9, 5, False), "radius"), ((math.nan, 0.9, 5, False), "radius"), ((1.0, 1.0, 5, False), "coverage"),
     ((1.0, 0.9, 0, False), "num_rows"), ((1.0, 0.9, 5, 1), "is_scaled")],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(values, name):
    with pytest.raises(ConfigError, match=f"`{name}`"):
        ConformalIntervals(*values)
