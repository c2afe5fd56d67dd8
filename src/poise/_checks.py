"""Argument checks. One grammar for all messages: name, rule, value found."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection
from dataclasses import dataclass

from poise._errors import ConfigError


@dataclass(frozen=True)
class Interval:
    """A range of real numbers; an end is included unless it is marked open.

    Example:
        >>> str(Interval(0, 1, high_open=True)), 1.0 in Interval(0, 1, high_open=True)
        ('[0, 1)', False)
    """

    low: float
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        # No integer beyond the range of floats either: no tensor could hold it.
        return above and below and abs(value) <= sys.float_info.max

    def __str__(self) -> str:
        left = "(" if self.low_open else "["
        right = ")" if self.high_open or math.isinf(self.high) else "]"
        return f"{left}{self.low:g}, {self.high:g}{right}"


def check_real(name: str, value: object, interval: Interval) -> None:
    """Raise ConfigError unless `value` is a real number within `interval`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value not in interval:
        raise ConfigError(f"`{name}` must be a number in {interval}, but got {name}={value!r}.")


def check_integer(name: str, value: object, interval: Interval) -> None:
    """Raise ConfigError unless `value` is an integer within `interval`."""
    if isinstance(value, bool) or not isinstance(value, int) or value not in interval:
        raise ConfigError(f"`{name}` must be an integer in {interval}, but got {name}={value!r}.")


def check_choice(name: str, value: object, choices: Collection[object]) -> None:
    """Raise ConfigError unless `value` is one of `choices`."""
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ConfigError(f"`{name}` must be one of {listed}, but got {name}={value!r}.")


def check_type(name: str, value: object, kind: type | tuple[type, ...]) -> None:
    """Raise ConfigError unless `value` is an instance of `kind`."""
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        listed = " or ".join(one.__name__ for one in kinds)
        raise ConfigError(f"`{name}` must be {listed}, but got {name}={value!r}.")
