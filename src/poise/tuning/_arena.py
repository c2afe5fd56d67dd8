"""Where trials compete: whoever trains them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

from poise.recipe import Recipe


class Arena(ABC):
    """Trains trials, which are known by their numbers, and says how they stand.

    Args:
        max_epochs: Of a trial that is never cut short; schedules span it.
    """

    max_epochs: int

    @abstractmethod
    def enter(self, entries: Mapping[int, Recipe]) -> None:
        """Take in trials that have not trained yet."""

    @abstractmethod
    def advance(self, targets: Mapping[int, int]) -> None:
        """Train each named trial until it has done that many epochs or has stopped by itself."""

    @abstractmethod
    def curve(self, number: int) -> list[float]:
        """Validation loss after each epoch done, with finite values only; a trial that failed stops adding to it."""

    @abstractmethod
    def failed(self, number: int) -> bool:
        """Whether the trial ended with numbers that are not finite."""

    @abstractmethod
    def leave(self, numbers: Iterable[int]) -> None:
        """Free what belongs to trials that go no further; their curves stay."""

    @abstractmethod
    def seconds(self, number: int) -> float:
        """Training time of a trial so far."""

    @abstractmethod
    def engine(self, number: int) -> str:
        """Name of the engine that trains it."""

    def noise(self) -> float:
        """Standard error of the difference between two trials' validation losses: a smaller gain is none."""
        return 0.0
