"""The stacked engine: plans of one structure train as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch

from poise._checks import Interval, check_integer
from poise.data import Encoder
from poise.fleet._engine import Engine, OnEpoch
from poise.fleet.stacked._member import Member, built_for
from poise.fleet.stacked._structure import structure, unsupported
from poise.fleet.stacked._training import StackedTraining
from poise.train import Dataset, Plan, State


class StackedEngine(Engine):
    """Trains plans of one structure as stacked tensors through `torch.func`, on a CPU or a GPU.

    Plans share a stack if they have the same layers, the same methods with the same structural settings, the same task,
    dtype, batch size and numbers of rows. Strengths, schedules, learning rates, seeds, lengths, rows and encoders may
    differ. A plan that ends leaves its place to one that waits.

    Stacks are always `width` wide, places that no plan needs repeat another one. So shapes, and with them the bits of a
    plan's weights, do not depend on how many plans there are or when they end.

    Args:
        width: Plans that train side by side, ≥ 1.
        device: "cpu", "cuda" or "cuda:0" and so on.
        pad: Whether a stack keeps its width when plans run out. Without, the end of a queue is faster, but the last
            bits of a plan's weights may depend on when its neighbors ended.
    """

    name = "stacked"
    least_plans = 8

    def __init__(self, width: int = 32, *, device: str | torch.device = "cpu", pad: bool = True) -> None:
        check_integer("width", width, Interval(1))
        self.width, self.device, self.pad = width, torch.device(device), pad

    def why_not(self, plan: Plan) -> str:
        return unsupported(plan, self.device)

    def parallelism(self) -> int:
        return self.width

    def advance(
        self, plans: Sequence[Plan], states: Sequence[State], data: Dataset, *, until_epoch: int, on_epoch: OnEpoch
    ) -> None:
        groups: dict[object, list[int]] = {}
        for index, (plan, state) in enumerate(zip(plans, states, strict=True)):
            if _goes_on(state, until_epoch):
                network = built_for(plan, Encoder.from_state(*state.encoder_state())).network
                groups.setdefault(structure(plan, network), []).append(index)
        for indices in groups.values():
            waiting = (Member(index, plans[index], states[index], data) for index in indices)
            self._train(waiting, until_epoch, on_epoch)

    def _train(self, waiting: Iterator[Member], until_epoch: int, on_epoch: OnEpoch) -> None:
        """Train plans of one structure; each is set up when there is a place for it."""
        live = dict(enumerate(islice(waiting, self.width)))
        first = list(live.values())
        training = StackedTraining(first + first[:1] * (self.width - len(first)) * self.pad, self.device)
        while live:
            training.run_epoch()
            for place, member in list(live.items()):
                if not on_epoch(member.index, member.state) and not member.state.stopped:
                    member.state.stopped = "time"
                if not _goes_on(member.state, until_epoch):
                    del live[place]
            live = self._rearranged(training, live, waiting)

    def _rearranged(
        self, training: StackedTraining, live: dict[int, Member], waiting: Iterator[Member]
    ) -> dict[int, Member]:
        """Give free places to waiting plans, or to copies of another; returns who trains where."""
        width = len(training.members)
        free = [place for place in range(width) if place not in live]
        if not free:
            return live
        for place, member in zip(free, waiting, strict=False):
            training.seat(place, member)
            live[place] = member
        if not live:
            return {}
        if self.pad:
            spare = min(live)
            training.arrange([place if place in live else spare for place in range(width)])
            return live
        places = sorted(live)
        training.arrange(places)
        return {number: live[place] for number, place in enumerate(places)}


def _goes_on(state: State, until_epoch: int) -> bool:
    return not state.stopped and state.epoch < until_epoch
