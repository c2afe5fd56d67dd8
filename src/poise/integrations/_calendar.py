"""Parts of dates, in integer arithmetic that every runtime has; equal to those of `poise.data`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MISSING = -(2**63)
_DAY = 86_400_000_000
_DAYS_TO_1970 = 719_162  # from the first day of the year 1
_DAYS_IN_400_YEARS = 146_097
_BEFORE_MONTH = (31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)


def date_numbers(time: Tensor) -> Tensor:
    """Year and days since 1970 of microseconds since 1970, side by side for each date; NaN where missing.

    Shape:
        (B, D) int64 in, (B, 2 · D) float64 out.
    """
    is_missing = time == MISSING
    known = torch.where(is_missing, 0, time)
    parts = torch.stack((_year(_floor(known, _DAY)).double(), known.double() / _DAY), dim=2)
    return torch.where(is_missing.unsqueeze(2), math.nan, parts).flatten(1)


def date_cycles(time: Tensor, *, clock: bool) -> Tensor:
    """Sine and cosine of month, weekday and day of the year, and of the time of day with `clock`; 0 where missing.

    Shape:
        (B,) int64 in, (B, 6) or, with `clock`, (B, 8) float64 out.
    """
    is_missing = time == MISSING
    known = torch.where(is_missing, 0, time)
    day = _floor(known, _DAY)
    year = _year(day)
    ordinal = day - _first_day(year)
    turns = [
        _month(ordinal, _first_day(year + 1) - _first_day(year) - 365).double() / 12,
        _rest(day + 3, 7).double() / 7,  # 1970 began on a Thursday
        ordinal.double() / 365.25,
    ]
    if clock:
        turns.append(_rest(known, _DAY).double() / _DAY)
    angles = 2 * math.pi * torch.stack(turns, dim=1)
    cycles = torch.stack((torch.sin(angles), torch.cos(angles)), dim=2).flatten(1)
    return torch.where(is_missing.unsqueeze(1), 0.0, cycles)


def _floor(whole: Tensor, by: int) -> Tensor:
    # Runtimes differ in how they round quotients of integers below zero; rounding towards zero is the common ground.
    quotient = torch.div(whole, by, rounding_mode="trunc")
    return torch.where(quotient * by > whole, quotient - 1, quotient)


def _rest(whole: Tensor, by: int) -> Tensor:
    return whole - _floor(whole, by) * by


def _first_day(year: Tensor) -> Tensor:
    """Days from 1970 to the first day of a year."""
    before = year - 1
    return before * 365 + _floor(before, 4) - _floor(before, 100) + _floor(before, 400) - _DAYS_TO_1970


def _year(day: Tensor) -> Tensor:
    # The estimate is off by at most one.
    year = _floor((day + _DAYS_TO_1970) * 400, _DAYS_IN_400_YEARS) + 1
    year = torch.where(_first_day(year) > day, year - 1, year)
    return torch.where(_first_day(year + 1) <= day, year + 1, year)


def _month(ordinal: Tensor, is_leap: Tensor) -> Tensor:
    """The month, from 0, of a day of the year, from 0."""
    month = torch.zeros_like(ordinal)
    for number, days in enumerate(_BEFORE_MONTH):
        month = month + (ordinal >= days + (is_leap if number else 0)).to(ordinal.dtype)
    return month
