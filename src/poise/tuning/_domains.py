"""Ranges of single settings."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from poise._checks import check_type
from poise._errors import ConfigError
from poise.methods import Method

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial


@dataclass(frozen=True)
class Domain(ABC):
    """The values that a setting may take."""

    @abstractmethod
    def suggest(self, trial: BaseTrial, name: str) -> Any:
        """The value that an Optuna trial suggests for the setting `name`."""

    @abstractmethod
    def distribution(self) -> BaseDistribution:
        """The same as an Optuna distribution."""

    @abstractmethod
    def label(self, value: Any) -> Any:
        """How Optuna names `value`: a number, a string, a bool or None.

        Raises:
            ConfigError: If it is outside.
        """

    @abstractmethod
    def value(self, label: Any) -> Any:
        """The value that `label` names."""


@dataclass(frozen=True)
class _Numbers(Domain):
    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        ends = (self.low, self.high)
        if not (all(math.isfinite(end) for end in ends) and self.low < self.high):
            raise ConfigError(f"`low` must be below `high`, both finite, but got {self!r}.")
        if self.log and self.low <= 0:
            raise ConfigError(f"`low` must be above 0 on a logarithmic scale, but got {self!r}.")
        check_type("log", self.log, bool)

    def label(self, value: Any) -> Any:
        if not isinstance(value, int | float) or isinstance(value, bool) or not self.low <= value <= self.high:
            raise ConfigError(f"{value!r} is outside {self!r}.")
        return value

    def value(self, label: Any) -> Any:
        return self.label(label)


@dataclass(frozen=True)
class Float(_Numbers):
    """A real number in [low, high].

    Args:
        low: Finite.
        high: Finite, > low.
        log: Whether equal ratios are equally likely, rather than equal differences; low > 0 then.

    Example:
        >>> Float(1e-4, 1e-1, log=True).label(0.01)
        0.01
    """

    def suggest(self, trial: BaseTrial, name: str) -> float:
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high, log=self.log)


@dataclass(frozen=True)
class Int(_Numbers):
    """An integer in [low, high].

    Args:
        low: Smallest.
        high: Largest, > low.
        log: As for `Float`.

    Example:
        >>> Int(1, 4).label(2)
        2
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_type("low", self.low, int)
        check_type("high", self.high, int)

    def suggest(self, trial: BaseTrial, name: str) -> int:
        return trial.suggest_int(name, self.low, self.high, log=self.log)

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import IntDistribution

        return IntDistribution(self.low, self.high, log=self.log)

    def label(self, value: Any) -> Any:
        check_type("value", value, int)
        return super().label(value)


@dataclass(frozen=True, init=False)
class OneOf(Domain):
    """One of a few options: numbers, strings, bools, None or methods.

    Args:
        options: Two or more, all different.

    Example:
        >>> from poise.methods import Dropout
        >>> OneOf(None, Dropout(p=0.2)).label(Dropout(p=0.2))
        "Dropout(p=0.2, input_p=0.0, where='auto')"
    """

    options: tuple[Any, ...]

    def __init__(self, *options: Any) -> None:
        object.__setattr__(self, "options", options)
        labels = [self._name(option) for option in options]
        if len(options) < 2 or len(set(map(repr, labels))) < len(labels):
            raise ConfigError(f"`options` must be two or more different values, but got {options!r}.")

    def suggest(self, trial: BaseTrial, name: str) -> Any:
        return self.value(trial.suggest_categorical(name, [self._name(option) for option in self.options]))

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution([self._name(option) for option in self.options])

    def label(self, value: Any) -> Any:
        # `in` would take True for 1.
        if self._name(value) not in [self._name(one) for one in self.options if type(one) is type(value)]:
            raise ConfigError(f"{value!r} is not one of {self.options!r}.")
        return self._name(value)

    def value(self, label: Any) -> Any:
        for option in self.options:
            name = self._name(option)
            if name == label and type(name) is type(label):
                return option
        raise ConfigError(f"{label!r} names none of {self.options!r}.")

    @staticmethod
    def _name(option: Any) -> Any:
        if option is None or isinstance(option, bool | int | float | str):
            return option
        if isinstance(option, Method):
            return repr(option)
        raise ConfigError(f"An option must be a number, a string, a bool, None or a method, but got {option!r}.")
