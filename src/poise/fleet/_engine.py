"""What every engine can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from poise.fleet._start import start_states
from poise.train import Dataset, Plan, State

OnEpoch = Callable[[int, State], bool]
"""Called with a plan's index and its state after each of its epochs; False ends the training of that plan."""


def goes_on(state: State, until_epoch: int) -> bool:
    """Whether there is something to do until it has done `until_epoch` epochs."""
    return not state.stopped and state.epoch < until_epoch


class Engine(ABC):
    """Trains plans. All engines see the same random numbers and are held against `PlainEngine` by tests.

    A state belongs to no engine: one may go on where another stopped.
    """

    name: ClassVar[str]
    ends_epochs: ClassVar[bool] = False
    least_plans: ClassVar[int] = 1  # fewer are faster on another engine

    def start(self, plans: Sequence[Plan], data: Dataset) -> list[State]:
        """Fresh states: encoders fitted on each plan's training rows, initial weights from its seed."""
        return start_states(plans, data)

    @abstractmethod
    def why_not(self, plan: Plan) -> str:
        """What of `plan` this engine cannot do, by name; "" if it can do all."""

    @abstractmethod
    def advance(
        self, plans: Sequence[Plan], states: Sequence[State], data: Dataset, *, until_epochs: Sequence[int],
        on_epoch: OnEpoch,
    ) -> None:  # fmt: skip
        """Train each state in place until it has done its number of `until_epochs` or has stopped.

        Where the engine `ends_epochs`, an interrupt leaves every state as it was at the end of one of its epochs.
        """

    def parallelism(self) -> int:
        """How many plans train at the same time."""
        return 1

    def preparation(self, plans: Sequence[Plan]) -> str:
        """What `prepare` has to do that takes long, for the progress line; "" if nothing."""
        return ""

    def prepare(self, plans: Sequence[Plan]) -> None:  # noqa: B027 - most engines have nothing to prepare
        """Do work that is needed once on a machine or in a process before `plans` are trained."""
