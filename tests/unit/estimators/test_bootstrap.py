"""Bootstrap intervals against what theory says."""

import pytest
import torch

from poise._random import Key
from poise.estimators._bootstrap import bootstrap


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    values = Key(3).normal(2000, dtype=torch.float64)
    (found,) = bootstrap([lambda rows: values[rows].mean()], 2000, Key(1))
    error = float(values.std()) / 2000**0.5
    assert found.value == float(values.mean())
    assert found.low == pytest.approx(found.value - 1.96 * error, abs=0.25 * error)
    assert found.high == pytest.approx(found.value + 1.96 * error, abs=0.25 * error)


def test_models_are_compared_on_the_same_resamples():
    values = Key(3).normal(50, dtype=torch.float64)
    one, other = bootstrap([lambda rows: values[rows].mean(), lambda rows: 1 + values[rows].mean()], 50, Key(1))
    assert (other.low - one.low, other.high - one.high) == (pytest.approx(1), pytest.approx(1))


def test_one_row_has_no_width():
    (found,) = bootstrap([lambda rows: rows.to(torch.float64).mean()], 1, Key(1))
    assert (found.low, found.value, found.high) == (0, 0, 0)
