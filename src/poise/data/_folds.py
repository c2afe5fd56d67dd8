"""Rows dealt into folds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from poise._checks import Interval, check_integer
from poise._errors import DataError
from poise._random import Key

Rows = NDArray[np.int64]


def fold_rows(num_rows: int, num_folds: int, *, key: Key, classes: Rows | None = None) -> list[Rows]:
    """Deal the rows 0 … num_rows - 1 into folds, at random and evenly.

    With `classes`, the numbers of rows of a class in two folds differ by one at most, and so do the sizes of two folds.
    The only row of a class is in no fold, so that whoever leaves a fold out still sees every class.

    Args:
        num_rows: N ≥ 2.
        num_folds: In [2, N].
        key: Names the random numbers.
        classes: (N,) class codes, or None.

    Returns:
        The rows of each fold, sorted; no row is in two.

    Raises:
        ConfigError: If `num_folds` is no integer above 1.
        DataError: If there are fewer rows than folds, or none for one of them.

    Example:
        >>> [rows.tolist() for rows in fold_rows(6, 3, key=Key(0), classes=np.array([0, 0, 0, 1, 1, 1]))]
        [[0, 4], [1, 3], [2, 5]]

    Reference: Kohavi, "A study of cross-validation and bootstrap", IJCAI 1995.
    """
    check_integer("num_folds", num_folds, Interval(2))
    order = key.stream("folds").permutation(num_rows).numpy()
    if classes is not None:
        sizes = np.bincount(classes)
        order = order[np.argsort(classes[order], kind="stable")]
        order = order[sizes[classes[order]] > 1]
    if len(order) < num_folds:
        raise DataError(
            f"{num_rows} rows, of which {len(order)} can be left out, cannot fill {num_folds} folds.",
            repair="Give more rows or fewer folds.",
        )
    # Dealt like cards in the order of their classes: each class, and all rows together, are spread evenly.
    return [np.sort(order[fold::num_folds]) for fold in range(num_folds)]
