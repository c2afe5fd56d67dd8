"""The stacked engine: plans of one structure train as one."""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch

from poise._checks import Interval, check_integer
from poise.data import Encoder
from poise.fleet._engine import Engine, OnEpoch, goes_on
from poise.fleet.stacked._member import Member, built_for
from poise.fleet.stacked._structure import structure, unsupported
from poise.fleet.stacked._training import StackedTraining
from poise.train import Dataset, Plan, State


class StackedEngine(Engine):
    """Trains plans of one structure as stacked tensors through `torch.func`, on a CPU or a GPU.

    Plans share a stack if they have the same layers, the same methods with the same structural settings, the same task,
    dtype, batch size and numbers of rows. Strengths, schedules, learning rates, seeds, lengths, rows and encoders may
    differ. A plan that ends leaves its place to one that waits.

    Stacks are always `width` wide; a place that no plan needs repeats another one. The n-th plan of a structure trains
    in place n modulo the width. So what a plan computes depends neither on its neighbors' numbers nor on when they end,
    and it resumes bit for bit. In another place, at another width or on another number of threads the last bits may
    differ, since BLAS and torch compute the ends of vector registers and of shares of work otherwise than the rest.

    Args:
        width: Places, ≥ 1.
        device: "cpu", "cuda" or "cuda:0" and so on.
    """

    name = "stacked"

    def __init__(self, width: int = 32, *, device: str | torch.device = "cpu") -> None:
        check_integer("width", width, Interval(1))
        self.width, self.device = width, torch.device(device)
        self._structures: WeakKeyDictionary[Plan, Any] = WeakKeyDictionary()
        self._latest: tuple[StackedTraining, dict[int, Member], list[Any]] | None = None

    def why_not(self, plan: Plan) -> str:
        return unsupported(plan, self.device)

    def parallelism(self) -> int:
        return self.width

    def advance(
        self, plans: Sequence[Plan], states: Sequence[State], data: Dataset, *, until_epochs: Sequence[int],
        on_epoch: OnEpoch,
    ) -> None:  # fmt: skip
        groups: dict[Any, list[int]] = {}
        for index, (plan, state) in enumerate(zip(plans, states, strict=True)):
            groups.setdefault(self._structure(plan, state), []).append(index)

        def make(index: int) -> Member:
            return Member(index, plans[index], states[index], data)

        for indices in groups.values():
            # Plans that have ended count too: those after them keep their places when a fleet is resumed.
            waiting: list[deque[int]] = [deque() for _ in range(self.width)]
            for number, index in enumerate(indices):
                if goes_on(states[index], until_epochs[index]):
                    waiting[number % self.width].append(index)
            first = {place: queue.popleft() for place, queue in enumerate(waiting) if queue}
            if first:
                training, live = self._continued(first, states, data) or self._begun(first, make)
                self._train(training, live, waiting, make, data, until_epochs, on_epoch)

    def _structure(self, plan: Plan, state: State) -> Any:
        if plan not in self._structures:
            network = built_for(plan, Encoder.from_state(*state.encoder_state())).network
            self._structures[plan] = structure(plan, network)
        return self._structures[plan]

    def _begun(self, first: dict[int, int], make: Callable[[int], Member]) -> tuple[StackedTraining, dict[int, Member]]:
        live = {place: make(index) for place, index in first.items()}
        spare = next(iter(live.values()))
        return StackedTraining([live.get(place, spare) for place in range(self.width)], self.device), live

    def _continued(
        self, first: dict[int, int], states: Sequence[State], data: Dataset
    ) -> tuple[StackedTraining, dict[int, Member]] | None:
        """The latest training, if it left these states as they are: a fleet that goes on epoch by epoch."""
        if self._latest is None:
            return None
        (training, live, left), self._latest = self._latest, None
        here = [data, *(states[index].tensors for index in first.values())]
        if list(first) != list(live) or not all(map(operator.is_, here, left)):
            return None
        for member, index in zip(live.values(), first.values(), strict=True):
            member.index = index
        return training, live

    def _train(
        self, training: StackedTraining, live: dict[int, Member], waiting: list[deque[int]],
        make: Callable[[int], Member], data: Dataset, until_epochs: Sequence[int], on_epoch: OnEpoch,
    ) -> None:  # fmt: skip
        """Train plans of one structure, those of each place one after the other."""
        self._latest = None
        while live:
            training.run_epoch()
            ended = []
            for place, member in live.items():
                if not on_epoch(member.index, member.state) and not member.state.stopped:
                    member.state.stopped = "time"
                if not goes_on(member.state, until_epochs[member.index]):
                    ended.append(place)
            if len(ended) == len(live) and not any(waiting):
                self._latest = training, dict(live), [data, *(member.state.tensors for member in live.values())]
            for place in ended:
                live.pop(place)
                if waiting[place]:
                    live[place] = make(waiting[place].popleft())
                    training.seat(place, live[place])
            if ended and live:
                filled = min(live)
                training.arrange([place if place in live else filled for place in range(self.width)])
