"""Sets of classes: their coverage over many splits, and their rule by hand."""

import json

import numpy as np
import pytest

from poise import ConfigError, ConformalSets, DataError, PoiseWarning
from poise.ensemble._conformal_sets import _uniform_of

from .test_temperature import make_data


@pytest.mark.parametrize("method", ["lac", "aps"])
def test_nine_of_ten_are_covered_over_many_splits_whatever_the_model(method):
    covered = []
    for seed in range(60):
        p, y, _ = make_data(seed, 6, sharpness=4.0, num_rows=900)
        sets = ConformalSets.fit(p[:300], y[:300], method=method).predict(p[300:])
        covered.append(sets[np.arange(600), y[300:]].mean())
    assert np.mean(covered) == pytest.approx(0.9, abs=0.01)


def test_sets_grow_with_the_coverage_and_with_the_difficulty():
    p, y, _ = make_data(0, 6, num_rows=2000)
    for method in ("lac", "aps"):
        small, large = (ConformalSets.fit(p, y, method=method, coverage=one).predict(p) for one in (0.7, 0.95))
        assert (large >= small).all()
        assert large.sum() > small.sum()
    adaptive = ConformalSets.fit(p, y, method="aps").predict(p).sum(1)
    confidence = p.max(1)
    assert adaptive[confidence > 0.95].mean() + 1 < adaptive[confidence < 0.5].mean()


def plain_scores(p, u):
    """Sum of what comes before a class, and a part of its own."""
    scores = np.empty_like(p)
    for row in range(len(p)):
        for one in range(p.shape[1]):
            before = sum(other for other in p[row] if other > p[row, one])
            scores[row, one] = before + u[row] * p[row, one]
    return scores


def test_thresholds_are_those_of_a_loop():
    p, y, _ = make_data(0, 4, num_rows=39)
    rows = np.arange(39)
    fitted = ConformalSets.fit(p, y, coverage=0.8)
    assert fitted.threshold == pytest.approx(sorted(1 - p[rows, y])[31], rel=1e-14)
    clear = np.abs(1 - p - fitted.threshold) > 1e-12
    np.testing.assert_array_equal(fitted.predict(p)[clear], (1 - p <= fitted.threshold)[clear])
    scores = plain_scores(p, _uniform_of(p, 7))
    fitted = ConformalSets.fit(p, y, coverage=0.8, method="aps", seed=7)
    assert fitted.threshold == pytest.approx(sorted(scores[rows, y])[31])
    clear = np.abs(scores - fitted.threshold) > 1e-12
    np.testing.assert_array_equal(fitted.predict(p)[clear], (scores <= fitted.threshold)[clear])


def test_a_row_has_the_same_set_alone_or_in_company():
    p, y, _ = make_data(0, 5)
    fitted = ConformalSets.fit(p, y, method="aps")
    together = fitted.predict(p)
    np.testing.assert_array_equal(np.concatenate([fitted.predict(one[None]) for one in p]), together)
    np.testing.assert_array_equal(fitted.predict(p[::-1])[::-1], together)
    assert (ConformalSets.fit(p, y, method="aps", seed=1).predict(p) != together).any()


def test_the_random_numbers_are_uniform_and_independent_of_the_seed():
    p, _, _ = make_data(0, 3, num_rows=20_000)
    one, other = _uniform_of(p, 0), _uniform_of(p, 1)
    counts = np.histogram(one, bins=20, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # 0.1 % of chi-squared with 19 degrees of freedom
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03
    assert abs(np.corrcoef(one, p[:, 0])[0, 1]) < 0.03


def test_too_few_rows_give_every_class_and_say_so():
    p, y, _ = make_data(0, 3, num_rows=8)
    with pytest.warns(PoiseWarning, match="8 rows cannot"):
        fitted = ConformalSets.fit(p, y)
    assert fitted.predict(p).all()
    assert ConformalSets.from_dict(json.loads(json.dumps(fitted.to_dict(), allow_nan=False))) == fitted


def test_what_does_not_fit_is_refused():
    p, y, _ = make_data(0, 3, num_rows=20)
    fitted = ConformalSets.fit(p, y)
    with pytest.raises(DataError, match="3 classes"):
        fitted.predict([[0.5, 0.5]])
    with pytest.raises(DataError, match="`target`"):
        ConformalSets.fit(p, y[:3])
    for wrong in ({"method": "raps"}, {"coverage": 1.5}, {"seed": -1}, {"seed": 2**64}, {"seed": 0.5}):
        with pytest.raises(ConfigError, match=f"`{next(iter(wrong))}`"):
            ConformalSets.fit(p, y, **wrong)


@pytest.mark.parametrize(
    ("values", "name"),
    [((-1.0, 0.9, 5, 3, "lac"), "threshold"), ((1.0, 0.9, 0, 3, "lac"), "num_rows"),
     ((1.0, 0.9, 5, 1, "lac"), "num_classes")],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(values, name):
    with pytest.raises(ConfigError, match=f"`{name}`"):
        ConformalSets(*values)
