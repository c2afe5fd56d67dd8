"""Guessing what a column means."""

from __future__ import annotations

import re

import polars as pl

from poise.data._dates import date_formats

ID_SHARE = 0.95
ID_ROWS = 50
TEXT_LENGTH = 30
TEXT_SHARE = 0.5

_BOOLEANS = ("true", "false")
_ID_WORDS = {"id", "ids", "uuid", "guid", "index", "idx", "key", "rowname", "rownames", "rownumber", "unnamed"}
_NAME_PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def infer_kind(cells: pl.Series, name: str, *, all_numbers: bool) -> tuple[str, str, str]:
    """Kind, note and date format of the nameless `cells` of column `name`."""
    is_number = cells.dtype.is_numeric()
    num_distinct = cells.n_unique() - int(cells.has_nulls())
    if all_numbers and is_number:
        return "number", _summary(cells, num_distinct), ""
    if num_distinct + int(cells.has_nulls()) <= 1:
        return "constant", _constant_note(cells, num_distinct), ""
    if cells.dtype == pl.Boolean:
        return "boolean", _summary(cells, num_distinct), ""
    if cells.dtype.is_temporal():
        return "date", _summary(cells, num_distinct), ""
    if is_number:
        return _kind_of_numbers(cells, name, num_distinct)
    return _kind_of_text(cells, num_distinct)


def _kind_of_numbers(cells: pl.Series, name: str, num_distinct: int) -> tuple[str, str, str]:
    if num_distinct == len(cells) and cells.dtype.is_integer():
        if len(cells) >= ID_ROWS and bool((cells.cast(pl.Int64).diff().drop_nulls() == 1).all()):
            return "id", f"{_summary(cells, num_distinct)}: counts the rows, left out", ""
        if len(cells) >= ID_ROWS // 5 and _is_named_like_id(name):
            return "id", f"{_summary(cells, num_distinct)}: looks like an id, left out", ""
    return "number", _summary(cells, num_distinct), ""


def _kind_of_text(cells: pl.Series, num_distinct: int) -> tuple[str, str, str]:
    known, summary = cells.drop_nulls(), _summary(cells, num_distinct)
    # The first cell is asked first, which is cheap where columns are many.
    if num_distinct <= 4 and known[0].lower() in _BOOLEANS and known.str.to_lowercase().is_in(_BOOLEANS).all():
        return "boolean", summary, ""
    formats = date_formats(cells)
    if len(formats) == 1:
        return "date", summary, formats[0]
    share = num_distinct / len(known)
    if share >= TEXT_SHARE and num_distinct > 2 and _mean_length(known) >= TEXT_LENGTH:
        return "text", f"{summary}, long text: left out", ""
    if share >= ID_SHARE and len(known) >= ID_ROWS:
        return "id", f"{summary}: looks like an id, left out{_stray_note(cells)}", ""
    if formats:
        summary += "; dates in which day and month cannot be told apart (write them as 2020-12-31)"
    return "category", summary + _stray_note(cells), ""


def _mean_length(cells: pl.Series) -> float:
    return float(cells.str.len_chars().sum()) / len(cells)


def _is_named_like_id(name: str) -> bool:
    words = [word.lower() for word in _NAME_PARTS.findall(name)]
    return bool(words) and (words[0] in _ID_WORDS or words[-1] in _ID_WORDS)


def _summary(cells: pl.Series, num_distinct: int) -> str:
    values = f"{num_distinct:,} different values"
    if num_distinct == len(cells):
        values += f" in {num_distinct:,} rows"
    gaps = cells.null_count()
    return f"{values}, {_percent(gaps, len(cells))} missing" if gaps else values


def _percent(part: int, whole: int) -> str:
    percent = 100 * part / whole
    return "less than 1 %" if percent < 1 else f"{percent:.0f} %"


def _constant_note(cells: pl.Series, num_distinct: int) -> str:
    if num_distinct == 0:
        return "no value in any row, left out"
    return f"always {str(cells[0])[:40]!r}, left out"


def _stray_note(cells: pl.Series) -> str:
    """A hint where a few cells keep a column from being one of numbers."""
    known = cells.drop_nulls()
    numbers = known.cast(pl.Float64, strict=False)
    num = numbers.null_count()
    if num == 0 or num > len(known) / 10:
        return ""
    stray = str(known.filter(numbers.is_null())[0])[:40]
    row = (cells == stray).arg_max()
    row_note = f" in row {row + 1:,}" if row is not None else ""
    return f"; all but {num:,} are numbers, for example {stray!r}{row_note} is not"
