"""Fits plans into a time budget before they start, so that their schedules end when the time does."""

from __future__ import annotations

import time
from collections.abc import Sequence

from poise.fleet._engine import Engine
from poise.train import Dataset, Plan


def within_time(plans: Sequence[Plan], data: Dataset, engine: Engine, seconds: float) -> list[Plan]:
    """The plans with `max_epochs` lowered where needed for all of them to end within `seconds`.

    One epoch of each is timed on a state that is thrown away. Plans that need less than an equal share leave the rest
    to the others.

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
    started = time.perf_counter()
    engine.advance([plan], states, data, until_epoch=1, on_epoch=lambda *_: True)
    return time.perf_counter() - started
