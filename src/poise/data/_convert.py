"""Columns in the dtype of their kind, with errors that name column, row and value.

Cells come without a name, beside it: polars takes a name like "^a$" for a pattern.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from poise._errors import DataError
from poise.data._dates import parse_dates

_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}


def to_number(cells: pl.Series, name: str, _: str = "") -> pl.Series:
    """Float64 without NaN; numbers may come as text.

    Raises:
        DataError: If a value is no number, or is infinite.
    """
    if cells.dtype.is_temporal():
        raise _misfit(cells, name, cells.is_not_null(), "a number")
    if cells.dtype == pl.String:
        cells = cells.str.strip_chars().replace("", None)
    numbers = cells.cast(pl.Float64, strict=False)
    bad = numbers.is_null() & cells.is_not_null()
    if bad.any():
        raise _misfit(cells, name, bad, "a number")
    numbers = numbers.fill_nan(None)
    check_finite(numbers, name)
    return numbers


def are_numbers(cells: pl.DataFrame) -> bool:
    """Whether `to_number` would leave all columns as they are, as in a table that was converted before."""
    if set(cells.dtypes) != {pl.Float64}:
        return False
    num_known, num_gaps = int(np.isfinite(cells.to_numpy()).sum()), int(sum(cells.null_count().row(0)))
    return num_known + num_gaps == cells.height * cells.width


def numbers_at_once(columns: list[pl.Series]) -> dict[str, pl.Series]:
    """By name, those of `columns` of which `to_number` makes Float64 without a word, converted all together."""
    numbers = pl.DataFrame([one for one in columns if one.dtype.is_float() or one.dtype.is_integer()]).cast(pl.Float64)
    if numbers.width == 0:
        return {}
    known = np.isfinite(numbers.to_numpy()).sum(axis=0) + np.array(numbers.null_count().row(0))
    return {one.name: one for one, count in zip(numbers, known.tolist(), strict=True) if count == numbers.height}


def check_finite(cells: pl.Series, name: str) -> None:
    """Raise DataError, naming the first row, if `cells` holds infinite numbers."""
    if cells.dtype.is_float() and cells.is_infinite().any():
        row = cells.is_infinite().arg_max() or 0
        raise DataError(
            f"Infinite number {cells[row]}.",
            where=place(name, row),
            repair="Leave the cell empty if the value is unknown, or write a finite number.",
        )


def to_boolean(cells: pl.Series, name: str, _: str = "") -> pl.Series:
    """Booleans, which may come as text or as 0 and 1.

    Raises:
        DataError: If a value is neither.
    """
    if cells.dtype == pl.Boolean:
        return cells
    text = _to_text(cells).str.strip_chars().str.to_lowercase().replace("", None)
    booleans = text.replace_strict(_BOOLEANS, default=None, return_dtype=pl.Boolean)
    bad = booleans.is_null() & text.is_not_null()
    if bad.any():
        raise _misfit(cells, name, bad, "true or false")
    return booleans


def to_date(cells: pl.Series, name: str, date_format: str = "") -> pl.Series:
    """Microseconds since 1970; dates that were text in training are read in the same format.

    Raises:
        DataError: If a value is no date.
    """
    if cells.dtype in (pl.Date, pl.Datetime):
        return cells.cast(pl.Datetime("us"))
    if cells.null_count() == len(cells):
        return pl.Series([None] * len(cells), dtype=pl.Datetime("us"))
    if cells.dtype != pl.String:
        raise _misfit(cells, name, cells.is_not_null(), "a date")
    dates = parse_dates(cells, date_format or "%Y-%m-%d")
    bad = dates.is_null() & cells.is_not_null()
    if bad.any():
        raise _misfit(cells, name, bad, f"a date like {date_format or '%Y-%m-%d'}")
    return dates


def to_category(cells: pl.Series, *_: str) -> pl.Series:
    """Text; whole numbers are written without a point, so that 2 and 2.0 are the same category."""
    return _to_text(cells)


def place(name: str, row: int) -> str:
    """How errors name a cell; `row` counts from 0, people count from 1."""
    return f"column {name!r}, row {row + 1}"


CONVERTERS: dict[str, Callable[[pl.Series, str, str], pl.Series]] = {
    "number": to_number,
    "category": to_category,
    "boolean": to_boolean,
    "date": to_date,
}


def _to_text(cells: pl.Series) -> pl.Series:
    if cells.dtype.is_float():
        cells = cells.fill_nan(None)
        whole = cells.cast(pl.Int64, strict=False)
        if whole.null_count() == cells.null_count() and (whole.cast(pl.Float64) == cells.cast(pl.Float64)).all():
            cells = whole
    return cells.cast(pl.String)


def _misfit(cells: pl.Series, name: str, bad: pl.Series, expected: str) -> DataError:
    row = bad.arg_max() or 0
    value = str(cells[row])
    shown = value if len(value) <= 40 else value[:40] + "…"
    return DataError(
        f"Expected {expected}, but found {shown!r}.",
        where=place(name, row),
        repair="Correct the cell or leave it empty.",
    )
