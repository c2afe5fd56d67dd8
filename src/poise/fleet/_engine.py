"""What every engine can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from poise.train import Dataset, Plan, State

OnEpoch = Callable[[int, State], bool]
"""Called with a plan's index and its state after each of its epochs; False ends the training of that plan."""


class Engine(ABC):
    """Trains plans. All engines see the same random numbers and are held against `PlainEngine` by tests."""

    @abstractmethod
    def start(self, plans: Sequence[Plan], data: Dataset) -> list[State]:
        """Fresh states: encoders fitted on each plan's training rows, initial weights from its seed."""

    @abstractmethod
    def advance(
        self, plans: Sequence[Plan], states: Sequence[State], data: Dataset, *, until_epoch: int, on_epoch: OnEpoch
    ) -> None:
        """Train each state in place until it has done `until_epoch` epochs or has stopped."""
