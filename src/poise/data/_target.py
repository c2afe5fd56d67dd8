"""What is to be predicted: classes or a number."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from poise._errors import DataError
from poise.data._column import as_column

MAX_NUMBER_CLASSES = 20
_MANY_CLASSES = 1000
_SHOWN_ROWS = 5


class TaskGuess(NamedTuple):
    """A task, "binary", "multiclass" or "regression", and why it was guessed."""

    task: str
    note: str


def infer_task(values: object, *, name: str = "y") -> TaskGuess:
    """Guess the task from the target column.

    Text and booleans are classes. Numbers are classes if all are whole and there are at most 20 different ones;
    otherwise, and for dates never, the task is regression.

    Args:
        values: The target, (N,), without gaps.
        name: Of the column.

    Raises:
        DataError: If values are missing or infinite, mix types, are dates, are all the same, or are text that
            differs in nearly every row.

    Example:
        >>> infer_task(["yes", "no", "yes"])
        TaskGuess(task='binary', note='2 classes of text')
    """
    column = _checked(values, name)
    num_distinct = column.n_unique()
    if column.dtype.is_numeric():
        if column.dtype.is_float() and not bool((column == column.floor()).all()):
            return TaskGuess("regression", "numbers with fractions")
        if num_distinct > MAX_NUMBER_CLASSES:
            return TaskGuess("regression", f"{num_distinct:,} different numbers")
        what = "whole numbers"
    else:
        what = "text" if column.dtype == pl.String else "true and false"
        if num_distinct > max(_MANY_CLASSES, len(column) // 2) or num_distinct == len(column) > MAX_NUMBER_CLASSES:
            raise DataError(
                f"{num_distinct:,} different texts in {len(column):,} rows are no classes.",
                where=f"target {name!r}",
                repair="Choose another target, or make it numbers.",
            )
    return TaskGuess("binary" if num_distinct == 2 else "multiclass", f"{num_distinct} classes of {what}")


def encode_classes(values: object, *, name: str = "y") -> tuple[list[str | int | float | bool], NDArray[np.int64]]:
    """Distinct labels in ascending order, and the position of each row's label among them.

    Args:
        values: The target, (N,), without gaps.
        name: Of the column.

    Raises:
        DataError: If labels are missing or infinite, mix types, are dates, or are all the same.

    Example:
        >>> encode_classes(["yes", "no", "yes"])
        (['no', 'yes'], array([1, 0, 1]))
    """
    column = _checked(values, name)
    classes = column.unique().sort()
    codes = classes.search_sorted(column) if column.dtype != pl.Boolean else column.cast(pl.Int64)
    return classes.to_list(), np.asarray(codes, dtype=np.int64)


def _checked(values: object, name: str) -> pl.Series:
    column = as_column(values, name=name).alias("")
    where = f"target {name!r}"
    if len(column) == 0:
        raise DataError("Zero rows.", where=where, repair="Give at least two rows.")
    _check_complete(column, where)
    if column.dtype.is_temporal():
        raise DataError("Dates cannot be predicted.", where=where, repair="Make them numbers, such as days.")
    if column.n_unique() < 2:
        raise DataError(
            f"Only one value, {column[0]!r}, in all {len(column):,} rows; classification needs 2 classes.",
            where=where,
            repair="Give rows of at least two classes, or different numbers.",
        )
    return column


def _check_complete(column: pl.Series, where: str) -> None:
    """Raise DataError, naming rows, if values are missing or infinite."""
    bad = column.is_null()
    if column.dtype.is_float():
        bad |= column.is_infinite().fill_null(value=False)
    rows = (bad.arg_true() + 1).to_list()
    if rows:
        what = "is missing" if column[rows[0] - 1] is None else "is infinite"
        listed = ", ".join(f"{row:,}" for row in rows[:_SHOWN_ROWS])
        more = f" and {len(rows) - _SHOWN_ROWS:,} more" if len(rows) > _SHOWN_ROWS else ""
        raise DataError(
            f"The target {what} in row {listed}{more}.", where=where, repair="Drop these rows or fill them in."
        )
