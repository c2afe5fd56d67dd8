"""A table with the column that is to be predicted, read and understood."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from poise._errors import ConfigError, DataError
from poise._text import listed
from poise.data import Schema, as_table, check_columns, encode_classes, infer_schema, infer_task, read_table
from poise.train import Binary, Dataset, Multiclass, Regression, Task


@dataclass(frozen=True, eq=False)
class LabeledTable:
    """Features and target of a table.

    Args:
        features: N rows, without the target.
        values: (N,) class codes 0 … C - 1, or values.
        task: What is predicted.
        classes: (C,) labels in ascending order; None for regression.
    """

    features: pl.DataFrame
    values: NDArray[np.float64]
    task: Task
    classes: NDArray[Any] | None

    @property
    def codes(self) -> NDArray[np.int64] | None:
        """(N,) class codes; None for regression."""
        return None if self.classes is None else self.values.astype(np.int64)

    def dataset(self, schema: Schema, rows: NDArray[np.int64]) -> Dataset:
        """The rows `rows`, each with weight 1."""
        return Dataset(self.features[rows], schema, self.values[rows], np.ones(len(rows)))


def read_labeled(data: Any, target: str) -> LabeledTable:
    """The table `data`, of which the column `target` is to be predicted.

    Args:
        data: Path of a CSV, TSV or Parquet file, or a frame.
        target: Name of a column.

    Raises:
        ConfigError: If there is no such column.
        DataError: If the table cannot be read, or the target is nothing that can be predicted.
    """
    table = read_table(data) if isinstance(data, str | Path) else as_table(data, name="data")
    check_target(table, target)
    column, features = table[target], table.drop(target)
    kind = infer_task(column, name=target).task
    if kind == "regression":
        return LabeledTable(features, column.cast(pl.Float64).to_numpy(), Regression(), None)
    classes, codes = encode_classes(column, name=target)
    task = Binary() if kind == "binary" else Multiclass(len(classes))
    return LabeledTable(features, codes.astype(np.float64), task, np.array(classes))


def source_name(data: Any) -> str:
    """What to call `data` in a report."""
    # A file name need not be UTF-8, but what is written of it must be.
    named = str(data) if isinstance(data, str | Path) else "a table in memory"
    return named.encode(errors="backslashreplace").decode()


def check_target(table: pl.DataFrame, target: str) -> None:
    """Refuse a target that is not a column of the table.

    Args:
        table: As `read_table` gives it.
        target: Name of the column to predict.

    Raises:
        ConfigError: If there is no such column; the message holds the nearest names.

    Example:
        >>> check_target(pl.DataFrame({"age": [1], "city": ["a"]}), "age")
    """
    if target in table.columns:
        return
    near = difflib.get_close_matches(target, table.columns, n=3)
    hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"The columns are {listed(table.columns)}."
    raise ConfigError(f"There is no column {target!r} to predict.", where="`target`", repair=hint)


def feature_schema(table: pl.DataFrame) -> Schema:
    """What the columns of `table` mean, of which at least one must be a feature.

    Raises:
        DataError: If there are no rows or columns, or none is a feature; the message says why each is left out.
    """
    schema = infer_schema(table)
    if not schema.features:
        notes = "; ".join(f"{column.name!r}: {column.note}" for column in schema.left_out[:10])
        raise DataError(f"No column can be learnt from ({notes}).", repair="Give at least one column that varies.")
    return schema


def with_numbers(data: Dataset) -> Dataset:
    """The same rows, with numbers as float64, so that they are not converted again at every look.

    Raises:
        DataError: If a value does not fit its column; the message counts rows as they are in `data`.
    """
    checked = check_columns(data.schema, data.table)
    numbers = [checked.get_column(column.name) for column in data.schema.of("number")]
    return replace(data, table=data.table.with_columns(numbers))


def merge_equal_rows(data: Dataset) -> Dataset:
    """Rows in canonical order, equal ones (features and target) merged with their weights added, weightless ones gone.

    So a fit depends on the rows and their weights, not on their order, a row with weight 2 is the row twice, and a
    duplicate can never stand on both sides of the validation split.
    """
    names = [f"x{index}" for index in range(len(data.schema.feature_names))]
    features = data.table.select(data.schema.feature_names)
    frame = features.rename(dict(zip(features.columns, names, strict=True)), strict=False).with_columns(
        pl.Series("target", data.target), pl.Series("weight", data.weight)
    )
    merged = (
        frame.filter(pl.col("weight") > 0)
        .group_by([*names, "target"])
        .agg(pl.col("weight").sum())
        .sort([*names, "target"], nulls_last=True)
    )
    table = merged.select(names).rename(dict(zip(names, features.columns, strict=True)))
    return Dataset(table, data.schema, merged["target"].to_numpy(), merged["weight"].to_numpy())
