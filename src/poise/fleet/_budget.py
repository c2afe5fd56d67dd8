"""Fits plans into a time budget before they start, so that their schedules end when the time does."""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence

from poise.fleet._choice import choose, default_engines
from poise.fleet._engine import Engine
from poise.train import Dataset, Plan

_SHORT = 1.0
_LEAST = 1e-5
_HALVINGS = 40


def within_time(
    plans: Sequence[Plan], data: Dataset, seconds: float, *, engines: Sequence[Engine] | None = None
) -> list[Plan]:
    """The plans with `max_epochs` lowered where needed for all of them to end within `seconds`.

    An epoch or two of each are timed on a state that is thrown away. All plans get the same bound on their seconds, the
    highest with which the cores finish in time, so plans that need less leave the rest to the others.

    Args:
        plans: What is to be trained.
        data: What they are trained on.
        seconds: For all plans together, > 0; preparing an engine on a new machine does not count.
        engines: Who may train, as in `Fleet`.
    """
    offered = default_engines() if engines is None else engines
    crew = [choice.engine for choice in choose(plans, offered)]
    for engine in dict.fromkeys(crew):
        engine.prepare(plans)
    started = time.perf_counter()
    paces = [seconds_per_epoch(plan, data, engine) for plan, engine in zip(plans, crew, strict=True)]
    left = max(0.0, seconds - (time.perf_counter() - started))
    cores = min((engine.parallelism() for engine in crew), default=1)
    low, high = 0.0, left
    for _ in range(_HALVINGS):
        bound = (low + high) / 2
        low, high = (bound, high) if _makespan(_epochs(plans, paces, bound), paces, cores) <= left else (low, bound)
    bound = high if _makespan(_epochs(plans, paces, high), paces, cores) <= left else low
    return [plan.with_max_epochs(n) for plan, n in zip(plans, _epochs(plans, paces, bound), strict=True)]


def _epochs(plans: Sequence[Plan], paces: Sequence[float], bound: float) -> list[int]:
    pairs = zip(plans, paces, strict=True)
    return [min(plan.max_epochs, max(1, int(bound / pace))) for plan, pace in pairs]


def _makespan(epochs: Sequence[int], paces: Sequence[float], cores: int) -> float:
    """Seconds until the last plan ends, each taken by the first core that is free."""
    free = [0.0] * cores
    for number, pace in zip(epochs, paces, strict=True):
        heapq.heappush(free, heapq.heappop(free) + number * pace)
    return max(free)


def seconds_per_epoch(plan: Plan, data: Dataset, engine: Engine) -> float:
    """What an epoch of `plan` takes on one core, measured on a state that is thrown away.

    Args:
        plan: What is to be trained.
        data: What it is trained on.
        engine: Who trains it, prepared.
    """
    states = engine.start([plan], data)
    seconds = [0.0]
    # A short first epoch is mostly one-time work, such as first calls into libraries.
    while len(seconds) == 1 or (len(seconds) == 2 and seconds[1] < _SHORT):
        engine.advance([plan], states, data, until_epochs=[len(seconds)], on_epoch=lambda *_: True)
        if len(states[0].history) < len(seconds):
            break  # it ended with non-finite weights and will not take long
        seconds.append(states[0].history[-1].seconds)
    return max(_LEAST, seconds[-1] - (seconds[-2] if len(seconds) > 2 else 0.0))
