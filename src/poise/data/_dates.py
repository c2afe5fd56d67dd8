"""Dates: reading them from text, and the parts of them that a network can use."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

_DAY_MICROSECONDS = 86_400_000_000
ISO_FORMATS = (
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.fZ",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%Y/%m/%d",
)
DAY_FORMATS = ("%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y", "%d/%m/%Y %H:%M", "%d.%m.%Y %H:%M")
MONTH_FORMATS = ("%m/%d/%Y", "%m-%d-%Y", "%m/%d/%Y %H:%M")

# A year of two digits would be read as one of the first century.
_PLAUSIBLE = r"^\s*(\d{4}[-/]|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}(\s|$))"


def date_formats(text: pl.Series) -> list[str]:
    """The formats in which every cell of `text` is a date; two where day and month cannot be told apart."""
    cells = text.drop_nulls().unique()
    if cells.is_empty() or not cells.head(100).str.contains(_PLAUSIBLE).all():
        return []
    sample = cells.head(100)
    likely = [one for one in (*ISO_FORMATS, *DAY_FORMATS, *MONTH_FORMATS) if not parse_dates(sample, one).has_nulls()]
    return [one for one in likely if not parse_dates(cells, one).has_nulls()]


def parse_dates(text: pl.Series, date_format: str) -> pl.Series:
    """`text` as microseconds since 1970; null where it is not of `date_format`."""
    matching = text.str.contains(_PLAUSIBLE)
    return text.set(~matching, None).str.to_datetime(date_format, strict=False, time_unit="us")


def is_dated_only(dates: pl.Series) -> bool:
    """Whether no date has a time of day."""
    return not bool((dates.to_physical() % _DAY_MICROSECONDS != 0).any())


def numbers_of(dates: pl.Series) -> dict[str, NDArray[np.float64]]:
    """The year and the days since 1970, NaN where missing."""
    days = dates.to_physical().cast(pl.Float64) / _DAY_MICROSECONDS
    parts = {"year": dates.dt.year().cast(pl.Float64), "days": days}
    return {name: part.fill_null(float("nan")).to_numpy() for name, part in parts.items()}


def cycles_of(dates: pl.Series, *, clock: bool) -> dict[str, NDArray[np.float64]]:
    """Sine and cosine of month, weekday and day of the year, and of the time of day with `clock`; 0 where missing."""
    turns = {
        "month": (dates.dt.month().cast(pl.Float64) - 1) / 12,
        "weekday": (dates.dt.weekday().cast(pl.Float64) - 1) / 7,
        "day of year": (dates.dt.ordinal_day().cast(pl.Float64) - 1) / 365.25,
    }
    if clock:
        turns["time of day"] = (dates.to_physical() % _DAY_MICROSECONDS).cast(pl.Float64) / _DAY_MICROSECONDS
    parts = {}
    for name, turn in turns.items():
        angle = 2 * np.pi * turn.fill_null(float("nan")).to_numpy()
        parts[f"sin {name}"] = np.nan_to_num(np.sin(angle))
        parts[f"cos {name}"] = np.nan_to_num(np.cos(angle))
    return parts
