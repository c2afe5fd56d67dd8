"""How a strength or a learning rate changes over a training.

A schedule maps progress t in [0, 1] (steps done / steps planned) to a number. It is frozen plain data.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from poise._checks import Interval, check_integer, check_real

_PART = Interval(0, 1)


@dataclass(frozen=True)
class Schedule(ABC):
    """A number that changes with progress.

    Args:
        start: Value at the start.
    """

    start: float

    @abstractmethod
    def at(self, progress: float) -> float:
        """The value at `progress`, in [0, 1]."""

    @property
    def values(self) -> tuple[float, ...]:
        """The extreme values that the schedule takes; a range check looks at these."""
        return (self.start, getattr(self, "end", 0.0))


@dataclass(frozen=True)
class Constant(Schedule):
    """start, always.

    Example:
        >>> Constant(0.5).at(0.7)
        0.5
    """

    def at(self, progress: float) -> float:
        return self.start

    @property
    def values(self) -> tuple[float, ...]:
        return (self.start,)


@dataclass(frozen=True)
class Linear(Schedule):
    """start + (end - start) · t.

    Example:
        >>> Linear(0.0, end=0.4).at(0.5)
        0.2
    """

    end: float = 0.0

    def at(self, progress: float) -> float:
        return self.start + (self.end - self.start) * progress


@dataclass(frozen=True)
class Cosine(Schedule):
    """end + (start - end) · (1 + cos(π t)) / 2, after a linear warm-up from 0 over the first `warmup` of the training.

    Reference: Loshchilov and Hutter, "SGDR", ICLR 2017.

    Example:
        >>> Cosine(1.0).at(0.5)
        0.5
    """

    end: float = 0.0
    warmup: float = 0.0

    def __post_init__(self) -> None:
        check_real("warmup", self.warmup, Interval(0, 1, high_open=True))

    def at(self, progress: float) -> float:
        if progress < self.warmup:
            return self.start * progress / self.warmup
        part = (progress - self.warmup) / (1 - self.warmup)
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * part)) / 2

    @property
    def values(self) -> tuple[float, ...]:
        return (self.start, self.end, *((0.0,) if self.warmup else ()))


@dataclass(frozen=True)
class FlatCosine(Schedule):
    """start until t = `flat`, then a half cosine down to end.

    Example:
        >>> FlatCosine(0.15).at(0.4), FlatCosine(0.15).at(1.0)
        (0.15, 0.0)
    """

    end: float = 0.0
    flat: float = 0.5

    def __post_init__(self) -> None:
        check_real("flat", self.flat, Interval(0, 1, high_open=True))

    def at(self, progress: float) -> float:
        part = max(0.0, (progress - self.flat) / (1 - self.flat))
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * part)) / 2


@dataclass(frozen=True)
class CosLog(Schedule):
    """start · (1 - cos(2 π log2(1 + (2^cycles - 1) t))) / 2: warm-up and ever longer cosine cycles.

    Reference: Holzmüller, Grinsztajn, Steinwart, "Better by default", NeurIPS 2024.

    Example:
        >>> CosLog(1.0).at(0.0), CosLog(1.0).at(1.0)
        (0.0, 0.0)
    """

    cycles: int = 4

    def __post_init__(self) -> None:
        check_integer("cycles", self.cycles, Interval(1, 16))

    def at(self, progress: float) -> float:
        return self.start * (1 - math.cos(2 * math.pi * math.log2(1 + (2**self.cycles - 1) * progress))) / 2


@dataclass(frozen=True)
class CosineCycles(Schedule):
    """end + (start - end) · (1 + cos(π s)) / 2 in each of `cycles` equal cycles, s in [0, 1) its own progress.

    At the end of the training it is `end`; each cycle before restarts from `start`.

    Reference: Huang et al., "Snapshot ensembles", ICLR 2017; Loshchilov and Hutter, "SGDR", ICLR 2017.

    Example:
        >>> CosineCycles(1.0, cycles=2).at(0.25), CosineCycles(1.0, cycles=2).at(0.5)
        (0.5, 1.0)
    """

    end: float = 0.0
    cycles: int = 5

    def __post_init__(self) -> None:
        check_integer("cycles", self.cycles, Interval(1, 1000))

    def at(self, progress: float) -> float:
        # A step that begins a cycle may lie a rounding error before it.
        cycle = min(self.cycles - 1, math.floor(progress * self.cycles + 1e-9))
        part = max(0.0, progress * self.cycles - cycle)
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * part)) / 2


@dataclass(frozen=True)
class EarlyOnly(Schedule):
    """start until t = `until`, then 0: early dropout, which reduces underfitting.

    Reference: Liu et al., "Dropout reduces underfitting", ICML 2023.

    Example:
        >>> EarlyOnly(0.3, until=0.5).at(0.6)
        0.0
    """

    until: float = 0.5

    def __post_init__(self) -> None:
        check_real("until", self.until, _PART)

    def at(self, progress: float) -> float:
        return self.start if progress < self.until else 0.0


@dataclass(frozen=True)
class LateOnly(Schedule):
    """0 until t = `since`, then start: late dropout, which reduces overfitting.

    Reference: Liu et al., "Dropout reduces underfitting", ICML 2023.

    Example:
        >>> LateOnly(0.3, since=0.5).at(0.6)
        0.3
    """

    since: float = 0.5

    def __post_init__(self) -> None:
        check_real("since", self.since, _PART)

    def at(self, progress: float) -> float:
        return self.start if progress >= self.since else 0.0


Strength = float | Schedule
"""A number, or a schedule of one."""


def value_at(strength: Strength, progress: float) -> float:
    """The number that `strength` stands for at `progress`."""
    return strength.at(progress) if isinstance(strength, Schedule) else strength
