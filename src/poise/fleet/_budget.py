"""Fits plans into a time budget before they start, so that their schedules end when the time does."""

from __future__ import annotations

import time
from collections.abc import Sequence

from poise.fleet._engine import Engine
from poise.train import Dataset, Plan

_SHORT = 1.0
_LEAST = 1e-4


def within_time(plans: Sequence[Plan], data: Dataset, engine: Engine, seconds: float) -> list[Plan]:
    """The plans with `max_epochs` lowered where needed for all of them to end within `seconds`.

    An epoch or two of each are timed on a state that is thrown away. Plans that need less than an equal share leave the
    rest to the others.

    Args:
        plans: What is to be trained.
        data: What they are trained on.
        engine: Who will train them.
        seconds: For all plans together, > 0.
    """
    started = time.perf_counter()
    paces = [_seconds_per_epoch(plan, data, engine) for plan in plans]
    left = max(0.0, seconds - (time.perf_counter() - started))
    fitted = list(plans)
    by_need = sorted(range(len(plans)), key=lambda index: paces[index] * plans[index].max_epochs)
    for position, index in enumerate(by_need):
        share = left / (len(plans) - position)
        epochs = min(plans[index].max_epochs, max(1, int(share / paces[index])))
        fitted[index] = plans[index].with_max_epochs(epochs)
        left -= epochs * paces[index]
    return fitted


def _seconds_per_epoch(plan: Plan, data: Dataset, engine: Engine) -> float:
    states = engine.start([plan], data)
    seconds = [0.0]
    # A short first epoch is mostly one-time work, such as first calls into libraries.
    while len(seconds) == 1 or (len(seconds) == 2 and seconds[1] < _SHORT):
        engine.advance([plan], states, data, until_epoch=len(seconds), on_epoch=lambda *_: True)
        if len(states[0].history) < len(seconds):
            break  # it ended with non-finite weights and will not take long
        seconds.append(states[0].history[-1].seconds)
    return max(_LEAST, seconds[-1] - (seconds[-2] if len(seconds) > 2 else 0.0))
