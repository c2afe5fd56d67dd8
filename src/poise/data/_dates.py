"""Dates: reading them from text, and the parts of them that a network can use."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

_DAY_MICROSECONDS = 86_400_000_000
NUMBERS = ("year", "days")
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
    cells = text.drop_nulls()
    if cells.is_empty() or not any(letter.isdecimal() for letter in cells[0]):
        return []
    cells = cells.unique()
    if not cells.head(100).str.contains(_PLAUSIBLE).all():
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


def numbers_of(dates: pl.Series) -> NDArray[np.float64]:
    """(N, 2) `NUMBERS`: the year and the days since 1970, NaN where missing."""
    days = dates.to_physical().cast(pl.Float64) / _DAY_MICROSECONDS
    return _stack([dates.dt.year().cast(pl.Float64), days])


def cycle_names(*, clock: bool) -> list[str]:
    """What the columns of `cycles_of` stand for."""
    turns = ("month", "weekday", "day of year", *(["time of day"] if clock else []))
    return [f"{wave} {turn}" for turn in turns for wave in ("sin", "cos")]


def cycles_of(dates: pl.Series, *, clock: bool) -> NDArray[np.float64]:
    """(N, 6) sine and cosine of month, weekday and day of the year, and of the time of day with `clock`; 0 where
    missing.
    """
    turns = [
        (dates.dt.month().cast(pl.Float64) - 1) / 12,
        (dates.dt.weekday().cast(pl.Float64) - 1) / 7,
        (dates.dt.ordinal_day().cast(pl.Float64) - 1) / 365.25,
    ]
    if clock:
        turns.append((dates.to_physical() % _DAY_MICROSECONDS).cast(pl.Float64) / _DAY_MICROSECONDS)
    angles = 2 * np.pi * _stack(turns)
    waves = np.stack((np.sin(angles), np.cos(angles)), axis=2)
    parts: NDArray[np.float64] = np.nan_to_num(waves.reshape(len(dates), 2 * len(turns)))
    return parts


def _stack(parts: list[pl.Series]) -> NDArray[np.float64]:
    """(N, number of parts), NaN where missing."""
    return np.stack([part.fill_null(float("nan")).to_numpy() for part in parts], axis=1)
