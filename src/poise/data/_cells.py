"""Cells of text as numbers, where a whole column allows it."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?", "-")

_LEADING_ZERO = r"^[+-]?0[0-9]"
_DECIMAL_COMMA = r"^[+-]?([0-9]+|[0-9]{1,3}(\.[0-9]{3})+)(,[0-9]+)?([eE][+-]?[0-9]+)?$"
_SAMPLE = 1000
_CELLS_AT_ONCE = 1 << 18
_FEWEST_AT_ONCE = 4


def typed_columns(columns: list[pl.Series], *, decimal_comma: bool) -> list[pl.Series]:
    """`typed` of each of `columns`, which are equally long; of short ones many at once, since each call costs time."""
    width = _CELLS_AT_ONCE // max(1, len(columns[0]))
    if width < _FEWEST_AT_ONCE:
        return [typed(cells, decimal_comma=decimal_comma) for cells in columns]
    found: list[pl.Series] = []
    for start in range(0, len(columns), width):
        found += _typed_together(columns[start : start + width], decimal_comma=decimal_comma)
    return found


def _typed_together(columns: list[pl.Series], *, decimal_comma: bool) -> list[pl.Series]:
    """`typed` of each column, found on all their cells as one long column."""
    cells = pl.concat([one.alias("") for one in columns], rechunk=True).str.strip_chars()
    cells = cells.set(cells.is_in(MISSING), None)
    integers, floats = (cells.cast(kind, strict=False) for kind in (pl.Int64, pl.Float64))

    def of_any_cell(is_so: pl.Series) -> NDArray[np.bool_]:
        by_column = is_so.fill_null(value=False).to_numpy().reshape(len(columns), -1)
        found: NDArray[np.bool_] = np.logical_or.reduce(by_column, axis=1)
        return found

    is_text = of_any_cell(cells.is_not_null() & floats.is_null()) | of_any_cell(cells.str.contains(_LEADING_ZERO))
    is_float = of_any_cell(cells.is_not_null() & integers.is_null()) | ~of_any_cell(cells.is_not_null())
    has_comma = of_any_cell(cells.str.contains(",", literal=True)) & decimal_comma
    kinds = np.where(is_text, 2, np.where(is_float, 1, 0)).tolist()
    pools, height = (integers, floats.fill_nan(None), cells), len(columns[0])
    return [
        typed(one, decimal_comma=True) if comma else pools[kind].slice(place * height, height)
        for place, (one, kind, comma) in enumerate(zip(columns, kinds, has_comma.tolist(), strict=True))
    ]


def typed(cells: pl.Series, *, decimal_comma: bool) -> pl.Series:
    """`cells` without blanks around them, gaps as null; as integers or floats if all others are such.

    Args:
        cells: Text.
        decimal_comma: Whether `1.234,5` may be a number, too.
    """
    cells = cells.str.strip_chars()
    cells = cells.set(cells.is_in(MISSING), None)
    if cells.null_count() == len(cells):
        return cells.cast(pl.Float64)
    sample = cells.drop_nulls().head(_SAMPLE)
    if decimal_comma and sample.str.contains(_DECIMAL_COMMA).all() and _has_decimal_comma(cells):
        return _numbers(cells.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True), cells)
    if sample.cast(pl.Float64, strict=False).has_nulls():
        return cells
    return _numbers(cells, cells)


def _has_decimal_comma(cells: pl.Series) -> bool:
    """Whether any cell needs the comma read as a point, and every cell may have it so."""
    return bool(cells.str.contains(",", literal=True).any() and cells.str.contains(_DECIMAL_COMMA).all())


def _numbers(written: pl.Series, cells: pl.Series) -> pl.Series:
    """`written` as numbers, or `cells` if it does not hold only numbers."""
    if written.str.contains(_LEADING_ZERO).any():
        return cells
    for kind in (pl.Int64, pl.Float64):
        numbers = written.cast(kind, strict=False)
        if numbers.null_count() == cells.null_count():
            return numbers.fill_nan(None) if kind == pl.Float64 else numbers
    return cells
