"""What the columns of a table mean."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import polars as pl

from poise._checks import check_choice, check_type
from poise._errors import BundleError, ColumnsError, DataError
from poise._text import listed
from poise.data._convert import CONVERTERS, are_numbers, numbers_at_once
from poise.data._kinds import infer_kind

FEATURE_KINDS = tuple(CONVERTERS)
KINDS = (*FEATURE_KINDS, "id", "text", "constant")
_MOST_TEXTS = 50_000  # which take some minutes; numbers are read all at once and have no bound


@dataclass(frozen=True)
class Column:
    """What one column means.

    Args:
        name: Its name in the table.
        kind: "number", "category", "boolean" or "date", which are features; or "id", "text" or "constant",
            which are left out.
        note: What was seen, in plain language.
        date_format: How dates are written where they are text.

    Example:
        >>> Column("age", "number", "13 % missing").is_feature
        True
    """

    name: str
    kind: str
    note: str = ""
    date_format: str = ""

    def __post_init__(self) -> None:
        for field in ("name", "note", "date_format"):
            check_type(field, getattr(self, field), str)
        check_choice("kind", self.kind, KINDS)

    @property
    def is_feature(self) -> bool:
        """Whether the network sees it."""
        return self.kind in FEATURE_KINDS


@dataclass(frozen=True)
class Schema:
    """What the columns of a table mean, in their order.

    Example:
        >>> schema = Schema((Column("age", "number"), Column("key", "id")))
        >>> schema.feature_names, Schema.from_dict(schema.to_dict()) == schema
        (['age'], True)
    """

    columns: tuple[Column, ...]

    @cached_property
    def features(self) -> tuple[Column, ...]:
        """The columns that the network sees."""
        return tuple(column for column in self.columns if column.is_feature)

    @property
    def left_out(self) -> tuple[Column, ...]:
        """The columns that it does not see; their notes say why."""
        return tuple(column for column in self.columns if not column.is_feature)

    @property
    def feature_names(self) -> list[str]:
        """Names of the columns that the network sees."""
        return [column.name for column in self.features]

    def of(self, kind: str) -> tuple[Column, ...]:
        """The columns of one kind."""
        return tuple(column for column in self.columns if column.kind == kind)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        names = [one.name for one in fields(Column)]
        return {"columns": [{name: getattr(column, name) for name in names} for column in self.columns]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Schema:
        """The schema that `to_dict` wrote.

        Raises:
            BundleError: If `data` is anything else.
        """
        try:
            return cls(tuple(Column(**column) for column in data["columns"]))
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"Not a schema: {error}", repair="Fit again; the file was damaged.") from error


def infer_schema(table: pl.DataFrame, *, exclude: Collection[str] = (), all_numbers: bool = False) -> Schema:
    """Say what each column of `table` means.

    - number: integers and floats.
    - boolean: true and false, as such or as text.
    - date: dates and times, or text that is a date in every row in one unambiguous form.
    - id (left out): text with ≥ 95 % different values in ≥ 50 rows; different integers in a column named like an id,
      or that count up one by one.
    - text (left out): long text that differs between most rows.
    - constant (left out): one value throughout, or no value at all.
    - category: all other text.

    Args:
        table: As `read_table` or `as_table` gives it, (N, D).
        exclude: Columns that are not features, such as the target; they must exist.
        all_numbers: Whether every numeric column is a feature, even if constant or like an id; meant for arrays.

    Raises:
        DataError: If there are no rows or no columns, or more than 50,000 of text or dates.
        ColumnsError: If a name in `exclude` is not a column.

    Example:
        >>> infer_schema(pl.DataFrame({"age": [31, None, 54], "city": ["a", "b", "a"]})).columns[0]
        Column(name='age', kind='number', note='2 different values, 33 % missing', date_format='')
    """
    _check_exists(table, exclude)
    if table.height == 0 or table.width <= len(set(exclude)):
        missing = "Zero rows." if table.height == 0 else "Zero feature columns."
        raise DataError(missing, repair="Give a table with at least one row and one column besides the target.")
    names = [name for name in table.columns if name not in exclude]
    _check_kinds(table)
    kinds = [infer_kind(table.get_column(name).alias(""), name, all_numbers=all_numbers) for name in names]
    return Schema(tuple(Column(name, *kind) for name, kind in zip(names, kinds, strict=True)))


def check_columns(schema: Schema, table: pl.DataFrame) -> pl.DataFrame:
    """The features of `schema` out of `table`: found by name, in the schema's order, each in the dtype of its kind.

    Numbers come as float64, booleans as bool, dates as microseconds, categories as text; gaps are null. Further
    columns are ignored.

    Raises:
        ColumnsError: If features are missing; the message names them all.
        DataError: If a value does not fit its column's kind or is infinite; the message names column, row (counted
            from 1) and value.

    Example:
        >>> schema = Schema((Column("age", "number"),))
        >>> check_columns(schema, pl.DataFrame({"other": [1], "age": ["31"]})).rows()
        [(31.0,)]
    """
    present = set(table.columns)
    missing = [name for name in schema.feature_names if name not in present]
    if missing:
        raise ColumnsError(
            f"Missing {'column' if len(missing) == 1 else 'columns'} {listed(missing)}.",
            repair=f"Give all columns of the training table; found {listed(table.columns) or 'none'}.",
        )
    numbers = [column.name for column in schema.of("number")]
    if numbers and len(numbers) == len(schema.features) and are_numbers(chosen := table[numbers]):
        return chosen
    done = numbers_at_once([table.get_column(name) for name in numbers])
    return pl.DataFrame([done[one.name] if one.name in done else _converted(table, one) for one in schema.features])


def _converted(table: pl.DataFrame, column: Column) -> pl.Series:
    cells = table.get_column(column.name).alias("")
    return CONVERTERS[column.kind](cells, column.name, column.date_format).alias(column.name)


def _check_kinds(table: pl.DataFrame) -> None:
    num = sum(not kind.is_numeric() and kind != pl.Boolean for kind in table.dtypes)
    if num > _MOST_TEXTS:
        raise DataError(
            f"{num:,} columns hold text or dates, of which each is read on its own; {_MOST_TEXTS:,} are the most.",
            repair=f"Choose at most {_MOST_TEXTS:,} of them, or write categories as numbers.",
        )


def _check_exists(table: pl.DataFrame, names: Collection[str]) -> None:
    absent = [name for name in names if name not in table.columns]
    if absent:
        raise ColumnsError(f"No column named {absent[0]!r}.", repair=f"The columns are {listed(table.columns)}.")
