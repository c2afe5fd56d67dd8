"""Folds: even in size and in classes, complete, and the same for the same key."""

import numpy as np
import pytest

from poise._errors import ConfigError, DataError
from poise._random import Key
from poise.data import fold_rows


@pytest.mark.parametrize(("num_rows", "num_folds"), [(10, 5), (23, 4), (7, 7), (2, 2), (101, 10)])
def test_every_row_is_in_one_fold_and_sizes_are_even(num_rows, num_folds):
    folds = fold_rows(num_rows, num_folds, key=Key(3))
    assert sorted(np.concatenate(folds)) == list(range(num_rows))
    sizes = [len(fold) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    assert all((np.diff(fold) > 0).all() for fold in folds)


def test_each_class_is_spread_evenly():
    rng = np.random.default_rng(0)
    for seed in range(20):
        classes = rng.choice(4, 97, p=[0.6, 0.3, 0.07, 0.03])
        folds = fold_rows(97, 5, key=Key(seed), classes=classes)
        counts = np.array([np.bincount(classes[fold], minlength=4) for fold in folds])
        assert (counts.max(0) - counts.min(0)).max() <= 1
        sizes = counts.sum(1)
        assert sizes.max() - sizes.min() <= 1


def test_the_only_row_of_a_class_is_never_left_out():
    classes = np.array([0, 0, 1, 0, 0, 2, 2])
    folds = fold_rows(7, 2, key=Key(1), classes=classes)
    assert sorted(np.concatenate(folds)) == [0, 1, 3, 4, 5, 6]
    for fold in folds:
        rest = np.setdiff1d(np.arange(7), fold)
        assert set(classes[rest]) == {0, 1, 2}


def test_the_key_decides():
    one, same, other = (fold_rows(50, 5, key=Key(seed)) for seed in (0, 0, 1))
    assert all((a == b).all() for a, b in zip(one, same, strict=True))
    assert any((a != b).any() for a, b in zip(one, other, strict=True))


def test_too_few_rows_are_refused():
    with pytest.raises(DataError, match="3 rows"):
        fold_rows(3, 4, key=Key(0))
    with pytest.raises(DataError, match="of which 0 can be left out"):
        fold_rows(2, 2, key=Key(0), classes=np.array([0, 1]))
    with pytest.raises(ConfigError, match="`num_folds`"):
        fold_rows(3, 1, key=Key(0))
