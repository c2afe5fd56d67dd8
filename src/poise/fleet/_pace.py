"""How fast a fleet goes and how long it still needs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from poise.train import Plan, State


@dataclass(frozen=True)
class Pace:
    """Where a fleet stands.

    Args:
        finished: Plans that have come to their end.
        num_plans: All plans.
        plans_per_second: Finished plans over the time of this run, an unfinished one counting by its share of epochs.
        seconds_left: Until all have done all their epochs, if they go on like this; early stops make it less.
    """

    finished: int
    num_plans: int
    plans_per_second: float
    seconds_left: float


class Stopwatch:
    """Measures the pace of a fleet from now on."""

    def __init__(self, plans: Sequence[Plan], states: Sequence[State]) -> None:
        self.plans, self.states = plans, states
        self.started, self.done_before = time.monotonic(), self._shares()

    def _shares(self) -> list[float]:
        pairs = zip(self.plans, self.states, strict=True)
        return [1.0 if state.stopped else state.epoch / plan.max_epochs for plan, state in pairs]

    def read(self) -> Pace:
        """The pace now. Work is weighed by rows, weights and epochs."""
        shares, spent = self._shares(), max(1e-9, time.monotonic() - self.started)
        sizes = [
            float(len(plan.train_rows)) * _num_weights(state) * plan.max_epochs
            for plan, state in zip(self.plans, self.states, strict=True)
        ]
        done = sum(size * (now - then) for size, now, then in zip(sizes, shares, self.done_before, strict=True))
        left = sum(size * (1 - now) for size, now in zip(sizes, shares, strict=True))
        return Pace(
            finished=sum(bool(state.stopped) for state in self.states),
            num_plans=len(self.plans),
            plans_per_second=(sum(shares) - sum(self.done_before)) / spent,
            seconds_left=left * spent / done if done > 0 else float("inf"),
        )


def _num_weights(state: State) -> int:
    """0 for a plan whose tensors have been released."""
    return state.tensors["weights"].numel() if state.tensors else 0
