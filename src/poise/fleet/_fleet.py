"""Many plans, trained side by side or one after the other, whichever the engine does, and safe from interruption."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from poise._errors import ResumeError
from poise.fleet._engine import Engine
from poise.fleet._plain import PlainEngine
from poise.train import Dataset, Plan, State, load_state, remove_leftovers, save_state, to_json, write_atomically

_SECONDS_BETWEEN_CHECKPOINTS = 1.0


class Fleet:
    """Trains plans on one table; with a folder, continues where a killed process left off, bit for bit.

    Args:
        plans: What to train.
        data: The table that the plans' rows point into.
        folder: For checkpoints, made if missing; None keeps nothing on disk.
        engine: Who trains; the plain engine if None.

    Raises:
        ResumeError: If the folder holds checkpoints of other plans or other data, or damaged ones.
    """

    def __init__(
        self, plans: Sequence[Plan], data: Dataset, *, folder: Path | None = None, engine: Engine | None = None
    ) -> None:
        self.plans, self.data, self.folder = list(plans), data, folder
        self.engine = engine or PlainEngine()
        self.states: list[State] = []
        saved: list[State | None] = [None] * len(self.plans)
        if folder is not None:
            self._open(folder)
            saved = [load_state(folder, f"plan-{index}") for index in range(len(self.plans))]
        for plan, state in zip(self.plans, saved, strict=True):
            self.states.append(state or self.engine.start([plan], data)[0])

    def run(
        self,
        *,
        time_limit: float | None = None,
        on_epoch: Callable[[int, Plan, State], None] | None = None,
    ) -> list[State]:
        """Train all plans to their end.

        Args:
            time_limit: Seconds after which each plan stops at the end of its epoch.
            on_epoch: Called with the plan's index, the plan and its state after every epoch.

        Returns:
            The final states, in the order of the plans.
        """
        deadline = None if time_limit is None else time.monotonic() + time_limit
        saved_at = time.monotonic()

        def after_epoch(index: int, state: State) -> bool:
            nonlocal saved_at
            if on_epoch is not None:
                on_epoch(index, self.plans[index], state)
            goes_on = deadline is None or time.monotonic() < deadline
            if not goes_on and not state.stopped:
                state.stopped = "time"
            if state.stopped or time.monotonic() - saved_at > _SECONDS_BETWEEN_CHECKPOINTS:
                self._save(index, state)
                saved_at = time.monotonic()
            return goes_on

        until = max((plan.max_epochs for plan in self.plans), default=0)
        self.engine.advance(self.plans, self.states, self.data, until_epoch=until, on_epoch=after_epoch)
        return self.states

    def _open(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        path = folder / "fleet.json"
        own = {"data": fingerprint(self.data), "plans": [_plan_fingerprint(one) for one in self.plans]}
        if not path.exists():
            write_atomically(path, to_json(own))
        elif json.loads(path.read_bytes()) != own:
            raise ResumeError(
                "The folder holds checkpoints of another training: other data, recipes, rows or seed.",
                where=str(folder),
                repair="Give the same data and options again, or an empty folder.",
            )

    def _save(self, index: int, state: State) -> None:
        if self.folder is not None:
            save_state(state, self.folder, f"plan-{index}")


def fingerprint(data: Dataset) -> str:
    """A digest of table, target and weights; equal data give equal digests."""
    digest = hashlib.sha256(repr(data.schema).encode())
    digest.update(data.table.select(data.schema.feature_names).hash_rows(seed=0).to_numpy().tobytes())
    digest.update(np.ascontiguousarray(data.target).tobytes() + np.ascontiguousarray(data.weight).tobytes())
    return digest.hexdigest()


def _plan_fingerprint(plan: Plan) -> str:
    digest = hashlib.sha256(repr((plan.name, plan.recipe, plan.task, plan.seed, str(plan.dtype))).encode())
    digest.update(plan.train_rows.tobytes() + b"|" + plan.val_rows.tobytes())
    return digest.hexdigest()
