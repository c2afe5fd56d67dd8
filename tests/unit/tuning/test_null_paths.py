"""Paths of t statistics without an effect."""

import numpy as np
import pytest
from scipy.stats import t

from poise.tuning._null_paths import null_paths, share_that_crosses


@pytest.mark.parametrize(("counts", "ratio"), [((5, 10, 12), 0.25), ((2, 3), 0.0)])
def test_each_look_alone_is_students_t(counts, ratio):
    for values, count in zip(null_paths(counts, ratio), counts, strict=True):
        for level in (0.5, 0.05, 0.005):
            assert (values > t.isf(level / 2, count - 1)).mean() == pytest.approx(level, rel=0.03)


def test_looks_go_together_as_they_do_for_differences_one_by_one():
    rng, num = np.random.default_rng(0), 200_000
    plain = np.sqrt(0.25) * rng.normal(size=(num, 1)) + rng.normal(size=(num, 10))
    slow = [
        abs(seen.mean(1)) / (seen.std(1, ddof=1) * np.sqrt(1 / seen.shape[1] + 0.25))
        for seen in (plain[:, :5], plain[:, :10])
    ]
    fast = null_paths((5, 10), 0.25)
    for first, second in ((2.0, 2.0), (1.0, 3.0), (4.0, 2.5)):
        expected = ((slow[0] > first) & (slow[1] > second)).mean()
        assert ((fast[0] > first) & (fast[1] > second)).mean() == pytest.approx(expected, rel=0.05)


def test_a_path_crosses_if_any_of_its_looks_does():
    paths = np.array([[1.0, 3.0, 0.0], [0.5, 0.0, 5.0]], dtype=np.float32)
    assert share_that_crosses(paths, np.array([2.0, 2.0])) == pytest.approx(2 / 3)
    assert share_that_crosses(paths, np.array([9.0, 9.0])) == 0
