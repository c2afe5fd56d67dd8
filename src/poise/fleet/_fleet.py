"""Many plans, trained side by side, and safe from interruption."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from torch import Tensor

from poise._errors import ResumeError
from poise.data import Inputs
from poise.fleet._choice import Choice, choose, default_engines, explain
from poise.fleet._encoded import encoded
from poise.fleet._engine import Engine, OnEpoch, goes_on
from poise.fleet._memory import check_fits
from poise.fleet._pace import Pace, Stopwatch
from poise.fleet._start import start_states
from poise.train import (
    Dataset,
    Plan,
    Predictor,
    State,
    load_state,
    remove_leftovers,
    save_state,
    to_json,
    write_atomically,
)

_SECONDS_BETWEEN_CHECKPOINTS = 1.0
_QUICKLY_SAVED = 0.1  # seconds; a checkpoint that takes longer comes so much more rarely
OnPlanEpoch = Callable[[int, Plan, State], None]


class Fleet:
    """Trains plans on one table, each on the fastest engine that can; with a folder, continues where a killed process
    left off, bit for bit.

    Memory is that of the states, seven vectors as long as the weights for each plan, and for each core the buffers of
    one training. It is taken when the fleet is made.

    Args:
        plans: What to train.
        data: The table that the plans' rows point into.
        folder: For checkpoints, made if missing; None keeps nothing on disk. It may hold more plans, which come later.
        engines: Who may train, the fastest first; None for all engines for the CPU.

    Raises:
        ConfigError: If no engine can train a plan.
        ResumeError: If the folder holds checkpoints of other plans or other data, or damaged ones.
        TrainingError: If the plans do not fit into memory; it names how many would.
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        data: Dataset,
        *,
        folder: Path | None = None,
        engines: Sequence[Engine] | None = None,
    ) -> None:
        self.data, self.folder = data, folder
        self._offered = default_engines() if engines is None else engines
        self.plans: list[Plan] = []
        self.choices: list[Choice] = []
        self.states: list[State] = []
        self._due_at: list[float] = []
        self._unsaved: set[int] = set()
        self.extend(plans)

    def extend(self, plans: Sequence[Plan]) -> None:
        """Take in more plans, which get the next indices.

        Raises:
            ConfigError, ResumeError, TrainingError: As when a fleet is made.
        """
        first, choices = len(self.plans), choose(plans, self._offered)
        if self.folder is not None:
            self._open(self.folder, plans)
        self.states += self._start(first, plans)
        self.plans += plans
        self.choices += choices
        self._due_at += [time.monotonic() + _SECONDS_BETWEEN_CHECKPOINTS] * len(plans)
        self.stopwatch = Stopwatch(self.plans, self.states)

    def _start(self, first: int, plans: Sequence[Plan]) -> list[State]:
        saved: list[State | None] = [None] * len(plans)
        if self.folder is not None:
            saved = [load_state(self.folder, f"plan-{first + number}") for number in range(len(plans))]
        missing = [number for number, state in enumerate(saved) if state is None]
        fresh = start_states([plans[number] for number in missing], self.data, check=check_fits)
        started = dict(zip(missing, fresh, strict=True))
        return [state if state is not None else started[number] for number, state in enumerate(saved)]

    def release(self, indices: Iterable[int]) -> None:
        """Stop plans for good and free their tensors; their histories stay, here and in the folder."""
        for index in indices:
            state = self.states[index]
            state.stopped = state.stopped or "pruned"
            state.tensors = {}
            self._save(index)

    def validation_predictions(self, index: int) -> Tensor:
        """What the network of a plan predicts for its validation rows.

        Returns:
            (N, classes) probabilities, or (N,) values in the target's own units.
        """
        plan, state = self.plans[index], self.states[index]
        numeric, categorical = encoded(plan, state, self.data).val.inputs
        return Predictor(plan.recipe, plan.task, state).predict_encoded(Inputs(numeric.double(), categorical))

    def explain(self) -> str:
        """Which engine trains which plans, and why not a faster one."""
        return explain(self.plans, self.choices)

    @property
    def pace(self) -> Pace:
        """Plans per second and time left."""
        return self.stopwatch.read()

    def run(self, *, time_limit: float | None = None, on_epoch: OnPlanEpoch | None = None) -> list[State]:
        """Train all plans to their end.

        Args:
            time_limit: Seconds after which each plan stops at the end of its epoch.
            on_epoch: Called with the plan's index, the plan and its state after every epoch, one call at a time.

        Returns:
            The final states, in the order of the plans.
        """
        until = max((plan.max_epochs for plan in self.plans), default=0)
        return self.advance(until, time_limit=time_limit, on_epoch=on_epoch)

    def advance(
        self,
        until_epoch: int | Mapping[int, int],
        *,
        time_limit: float | None = None,
        on_epoch: OnPlanEpoch | None = None,
    ) -> list[State]:
        """Train every plan until it has done `until_epoch` epochs or has stopped.

        Args:
            until_epoch: ≥ 1 for all plans, or by index; plans that are not named rest. Calls with growing numbers give
                the bits of one call with the last.
            time_limit: As in `run`.
            on_epoch: As in `run`.

        Returns:
            The states, in the order of the plans.
        """
        if not isinstance(until_epoch, Mapping):
            until_epoch = dict.fromkeys(range(len(self.plans)), until_epoch)
        targets = {index: until for index, until in until_epoch.items() if goes_on(self.states[index], until)}
        deadline = None if time_limit is None else time.monotonic() + time_limit
        self.stopwatch = Stopwatch(self.plans, self.states)

        def after_epoch(index: int, state: State) -> bool:
            self._unsaved.add(index)
            if on_epoch is not None:
                on_epoch(index, self.plans[index], state)
            in_time = deadline is None or time.monotonic() < deadline
            if not in_time and not state.stopped:
                state.stopped = "time"
            if state.stopped or time.monotonic() > self._due_at[index]:
                self._save(index)
            return in_time

        for engine, indices in self._crews(targets).items():
            self._train(engine, indices, [targets.get(index, 0) for index in indices], after_epoch)
        for index in sorted(self._unsaved):
            self._save(index)
        return self.states

    def _train(self, engine: Engine, indices: list[int], until_epochs: list[int], after_epoch: OnEpoch) -> None:
        plans, states = [self.plans[index] for index in indices], [self.states[index] for index in indices]
        engine.prepare(plans)
        report = partial(_renumbered, after_epoch, indices)
        try:
            engine.advance(plans, states, self.data, until_epochs=until_epochs, on_epoch=report)
        except BaseException:
            if engine.ends_epochs:
                self._save_all()
            raise

    def _crews(self, targets: Mapping[int, int]) -> dict[Engine, list[int]]:
        """The plans of each engine. Those that rest or have stopped keep their places: a stack counts them."""
        crews: dict[Engine, list[int]] = {}
        for index, choice in enumerate(self.choices):
            crews.setdefault(choice.engine, []).append(index)
        return {engine: indices for engine, indices in crews.items() if any(index in targets for index in indices)}

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self.data)

    def _open(self, folder: Path, plans: Sequence[Plan]) -> None:
        """Note more plans in the folder; if it has them already, they must be the same."""
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        path, first = folder / "fleet.json", len(self.plans)
        data, own = self._fingerprint, [_plan_fingerprint(one) for one in plans]
        found = json.loads(path.read_bytes()) if path.exists() else {"data": data, "plans": []}
        there = found["plans"][first : first + len(own)]
        if found["data"] == data and there == own[: len(there)]:
            if len(there) < len(own):
                write_atomically(path, to_json({"data": data, "plans": [*found["plans"][:first], *own]}))
        else:
            raise ResumeError(
                "The folder holds checkpoints of another training: other data, recipes, rows or seed.",
                where=str(folder),
                repair="Give the same data and options again, or an empty folder.",
            )

    def _save(self, index: int) -> None:
        started = time.monotonic()
        if self.folder is not None:
            save_state(self.states[index], self.folder, f"plan-{index}")
        ended = time.monotonic()
        self._due_at[index] = ended + _SECONDS_BETWEEN_CHECKPOINTS * max(1.0, (ended - started) / _QUICKLY_SAVED)
        self._unsaved.discard(index)

    def _save_all(self) -> None:
        """What was trained since the last checkpoints, before an interrupt ends the process."""
        for index in sorted(self._unsaved):
            self._save(index)


def _renumbered(after_epoch: OnEpoch, indices: list[int], position: int, state: State) -> bool:
    """An engine counts its own plans; the fleet counts all."""
    return after_epoch(indices[position], state)


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
