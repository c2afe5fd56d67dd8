"""Parts of dates, in integer arithmetic that every runtime has; equal to those of `poise.data`."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

MISSING = -(2**63)
_DAY = 86_400_000_000
_DAYS_TO_1970 = 719_162  # from the first day of the year 1
_DAYS_IN_A_YEAR = 365.2425
_BEFORE_MONTH = (31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)
CYCLES = ("month", "weekday", "day of year", "time of day")


class DateParts(NamedTuple):
    """What a network reads of dates.

    Shape:
        numbers: (B, D, 2), year and days since 1970; NaN where missing.
        cycles: (B, D, 8), sine and cosine of month, weekday, day of the year and time of day; 0 where missing.
    """

    numbers: Tensor
    cycles: Tensor


def date_parts(time: Tensor) -> DateParts:
    """The parts of (B, D) int64 microseconds since 1970."""
    is_missing = time == MISSING
    known = torch.where(is_missing, 0, time)
    day, rest = _split(known)
    # Beyond microseconds, all integers are so small that float64 holds them and floors their quotients exactly.
    year, ordinal, length = _year(day)
    month = (ordinal.unsqueeze(-1) >= _month_starts(length)).sum(-1)
    turns = (month.double() / 12, _modulo(day + 3, 7) / 7, ordinal / _real(365.25), rest.double() / _real(_DAY))
    angles = _real(2 * math.pi) * torch.stack(turns, dim=-1)
    cycles = torch.stack((torch.sin(angles), torch.cos(angles)), dim=-1).flatten(2)
    gap = is_missing.unsqueeze(-1)
    # By the inverse, as polars divides: training rows must meet their own quantiles to the last bit.
    numbers = torch.stack((year, known.double() * _real(1 / _DAY)), dim=-1)
    return DateParts(torch.where(gap, math.nan, numbers), torch.where(gap, 0.0, cycles))


def _split(time: Tensor) -> tuple[Tensor, Tensor]:
    """Whole days as float64, and the microseconds of the day."""
    # Exporters differ in how they divide integers, one does it in float32; in float64 it is off by one at most.
    day = torch.floor(time.double() / _real(_DAY)).to(time.dtype)
    rest = time - day * _DAY
    late, early = (rest >= _DAY).to(time.dtype), (rest < 0).to(time.dtype)
    return (day + late - early).double(), rest - (late - early) * _DAY


def _year(day: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The year, the day within it from 0, and its number of days."""
    near = torch.floor((day + _DAYS_TO_1970) / _real(_DAYS_IN_A_YEAR)) + 1
    years = near.unsqueeze(-1) + torch.tensor([-1.0, 0.0, 1.0, 2.0], dtype=day.dtype)
    before = years - 1
    leaps = torch.floor(before / 4) - torch.floor(before / 100) + torch.floor(before / 400)
    starts = before * 365 + leaps - _DAYS_TO_1970
    place = (starts <= day.unsqueeze(-1)).sum(-1, keepdim=True) - 1
    start, following = (torch.gather(starts, -1, place + shift).squeeze(-1) for shift in (0, 1))
    return near - 1 + place.squeeze(-1), day - start, following - start


def _month_starts(length: Tensor) -> Tensor:
    """Days before each month but the first, in years of `length` days."""
    starts = torch.tensor(_BEFORE_MONTH, dtype=length.dtype)
    after_february = torch.tensor([0.0] + [1.0] * 10, dtype=length.dtype)
    return starts + (length - 365).unsqueeze(-1) * after_february


def _real(number: float) -> Tensor:
    # Exporters round plain numbers to float32.
    return torch.tensor(number, dtype=torch.float64)


def _modulo(whole: Tensor, by: int) -> Tensor:
    return whole - torch.floor(whole / by) * by
