"""Rows that stand in two parts of a split: a test on rows seen in training flatters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from poise.data._split import Split

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class SharedRows:
    """How many rows of the validation and test parts have a twin among the training rows.

    Args:
        num_val: Validation rows whose values are those of some training row.
        num_test: Test rows of which the same is true.
        share_val: num_val / validation rows.
        share_test: num_test / test rows.

    Example:
        >>> print(SharedRows(0, 3, 0.0, 0.015))
        3 test rows (1.5 %) and 0 validation rows (0.0 %) equal a training row.
    """

    num_val: int
    num_test: int
    share_val: float
    share_test: float

    def __str__(self) -> str:
        return (
            f"{self.num_test:,} test rows ({100 * self.share_test:.1f} %) and "
            f"{self.num_val:,} validation rows ({100 * self.share_val:.1f} %) equal a training row."
        )


def duplicated_rows(table: pl.DataFrame, split: Split) -> SharedRows:
    """Count the validation and test rows that equal a training row in all columns of `table`.

    Args:
        table: The columns to compare: the features, with or without the target.
        split: Of its rows.

    Example:
        >>> table = pl.DataFrame({"a": [1, 2, 1, 3]})
        >>> duplicated_rows(table, Split(np.array([0, 1]), np.array([2]), np.array([3])))
        SharedRows(num_val=1, num_test=0, share_val=1.0, share_test=0.0)
    """
    num_val, num_test = (num_shared_rows(table, split.train, rows) for rows in (split.val, split.test))
    return SharedRows(num_val, num_test, num_val / max(len(split.val), 1), num_test / max(len(split.test), 1))


def num_shared_rows(table: pl.DataFrame, a: Rows, b: Rows) -> int:
    """How many of the rows `b` equal one of the rows `a`, gaps being equal to gaps; by 64-bit hash."""
    if table.width == 0:
        return 0
    hashes = table.hash_rows(seed=0).to_numpy()
    return int(np.isin(hashes[b], hashes[a]).sum())
