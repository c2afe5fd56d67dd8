"""Bounds of looks against published ones and against the normal distribution in several dimensions."""

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import multivariate_normal, norm, t

from poise.tuning._looks import Looks, log_ratio, mean_interval, nominal_levels, spent

EQUAL = (0.2, 0.4, 0.6, 0.8, 1.0)
LOOKS = Looks((5, 10, 15, 20), 0.25)
OURS = (2 / 3, 6 / 7, 0.3 / (1 / 15 + 0.25), 1.0)


def test_bounds_are_the_published_ones():
    # Five equal looks, two-sided 5 %, spending like O'Brien and Fleming.
    bounds = [norm.isf(level) for level in nominal_levels(EQUAL, 0.025)]
    np.testing.assert_allclose(bounds, [4.8769, 3.3569, 2.6803, 2.2898, 2.0310], atol=2e-4)


def test_one_look_is_an_ordinary_test():
    assert nominal_levels((1.0,), 0.01) == pytest.approx((0.01,), rel=1e-9)


@pytest.mark.parametrize("fractions", [EQUAL[-3:], OURS])
@pytest.mark.parametrize("level", [0.025, 0.005])
def test_all_looks_together_err_as_often_as_is_spent(fractions, level):
    bounds = -ndtri(np.array(nominal_levels(fractions, level)))
    times = np.array(fractions)
    correlation = np.sqrt(np.minimum.outer(times, times) / np.maximum.outer(times, times))
    for number in range(1, len(fractions) + 1):
        none = multivariate_normal.cdf(bounds[:number], cov=correlation[:number, :number], abseps=1e-6, rng=0)
        assert 1 - none == pytest.approx(spent(fractions[number - 1], level), abs=3e-5)


def test_little_is_spent_early_and_all_in_the_end():
    shares = [spent(fraction, 0.05) for fraction in EQUAL]
    assert shares == sorted(shares)
    assert shares[0] < 1e-4
    assert shares[-1] == pytest.approx(0.05)


def test_a_look_without_new_blocks_keeps_its_bound():
    levels = nominal_levels((0.5, 0.5, 1.0), 0.025)
    assert levels[0] == levels[1]
    assert levels[2] == nominal_levels((0.5, 1.0), 0.025)[1]


def test_the_spread_allows_for_shared_rows():
    values = np.array([1.0, 3.0, 2.0, 6.0])
    assert Looks((4,), 0.0).spread(values) == pytest.approx(values.std(ddof=1) / 2)
    assert Looks((4,), 0.25).spread(values) == pytest.approx(values.std(ddof=1) * np.sqrt(1 / 4 + 1 / 4))


def test_one_planned_look_is_the_corrected_t_interval():
    assert Looks((10,), 0.25).critical([10], 0.05) == pytest.approx(t.isf(0.025, 9))


def test_more_looks_cost_a_little_and_early_ones_much():
    looks = Looks((5, 10, 15, 20), 0.25)
    last, first = looks.critical([5, 10, 15, 20], 0.05), looks.critical([5], 0.05)
    assert t.isf(0.025, 19) < last < t.isf(0.014, 19)
    assert first > t.isf(0.025, 4)


@pytest.mark.parametrize("level", [0.05, 0.004])
@pytest.mark.parametrize("looks", [LOOKS, Looks((2, 4, 6), 0.0)])
def test_intervals_miss_as_often_as_they_say_with_an_estimated_variance(looks, level):
    rng, num = np.random.default_rng(0), 100_000
    values = np.sqrt(looks.ratio) * rng.normal(size=(num, 1)) + rng.normal(size=(num, looks.counts[-1]))
    missed = np.zeros(num, dtype=bool)
    for number, count in enumerate(looks.counts):
        seen = values[:, :count]
        spread = seen.std(axis=1, ddof=1) * np.sqrt(1 / count + looks.ratio)
        missed |= abs(seen.mean(axis=1)) > spread * looks.critical(looks.counts[: number + 1], level)
    assert missed.mean() == pytest.approx(level, abs=4 * np.sqrt(level / num))


def test_mean_and_ratio_have_intervals_that_hold_as_often_as_they_say():
    rng, looks, hits = np.random.default_rng(0), Looks((12,), 0.0), np.zeros(2)
    for _ in range(400):
        values = 2 + rng.normal(size=12)
        first, second = rng.gamma(50, 3, size=12), rng.gamma(50, 2, size=12)
        for number, ((_, low, high), truth) in enumerate(
            [(mean_interval(values, looks, level=0.1), 2.0), (log_ratio(first, second, looks, level=0.1), 1.5)]
        ):
            hits[number] += low <= truth <= high
    assert (abs(hits / 400 - 0.9) < 0.04).all()


def test_the_ratio_of_equal_values_is_one_without_doubt():
    values = np.array([3.0, 4.0, 5.0])
    assert log_ratio(values, values, Looks((3,), 0.25), level=0.05) == (1.0, 1.0, 1.0)
