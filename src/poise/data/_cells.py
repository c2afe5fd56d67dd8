"""Cells of text as numbers, where a whole column allows it."""

from __future__ import annotations

import polars as pl

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?", "-")

_LEADING_ZERO = r"^[+-]?0[0-9]"
_DECIMAL_COMMA = r"^[+-]?([0-9]+|[0-9]{1,3}(\.[0-9]{3})+)(,[0-9]+)?([eE][+-]?[0-9]+)?$"
_SAMPLE = 1000


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
