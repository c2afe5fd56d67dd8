"""The finite-sample rule against brute force."""

import math
from fractions import Fraction

import numpy as np
import pytest

from poise import PoiseWarning
from poise.ensemble._conformal import conformal_quantile


@pytest.mark.parametrize("percent", [1, 10, 50, 80, 90, 93, 95, 99])
def test_it_is_the_smallest_score_that_covers_a_new_one(percent):
    """A new score is equally likely to have any of n + 1 ranks, so the k-th smallest covers it with k / (n + 1)."""
    rng = np.random.default_rng(percent)
    asked = Fraction(percent, 100)
    for num_rows in range(1, 130):
        scores = rng.permutation(num_rows).astype(float)
        enough = [score for score in sorted(scores) if Fraction(sum(scores <= score).item(), num_rows + 1) >= asked]
        if enough:
            assert conformal_quantile(scores, percent / 100) == enough[0]
        else:
            with pytest.warns(PoiseWarning, match=f"{num_rows} rows cannot"):
                assert conformal_quantile(scores, percent / 100) == math.inf


def test_the_warning_says_how_many_rows_it_takes():
    with pytest.warns(PoiseWarning, match="It takes 19 rows"):
        conformal_quantile(np.zeros(18), 0.95)
    assert conformal_quantile(np.zeros(19), 0.95) == 0
