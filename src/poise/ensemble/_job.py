"""What an ensemble is trained on, and what comes out of its members."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from poise._checks import Interval, check_real, check_type
from poise._errors import DataError, TrainingError
from poise._random import Key
from poise.data import split_rows
from poise.fleet import Engine, Fleet
from poise.methods import StopMethod
from poise.recipe import Recipe
from poise.train import Dataset, Plan, Predictor, Rows, State, Task

OnEpoch = Callable[[int, Plan, State], None]
_MIN_ROWS_TO_VALIDATE = 10
_PREDICTS = ("served", "served_statistics")


@dataclass(frozen=True, eq=False)
class TrainedMember:
    """A network of an ensemble after its training.

    Args:
        plan: What was to be done.
        state: Where it ended; of its tensors those that predict.
        predictor: The network.
    """

    plan: Plan
    state: State
    predictor: Predictor


@dataclass(frozen=True, eq=False)
class Job:
    """What an ensemble is to be made of.

    Args:
        data: The table; rows of weight zero are left alone.
        task: What to predict.
        recipe: Of every member.
        seed: Names all random numbers.
        val_fraction: Share of rows for validation, in (0, 1).
        folder: For checkpoints, or None.
        engines: Who may train, as in `Fleet`.
        on_epoch: Called after every epoch of every member.
    """

    data: Dataset
    task: Task
    recipe: Recipe
    seed: int = 0
    val_fraction: float = 0.2
    folder: Path | None = None
    engines: Sequence[Engine] | None = None
    on_epoch: OnEpoch | None = None

    @property
    def key(self) -> Key:
        """The root of all random numbers."""
        return Key(self.seed)

    @cached_property
    def rows(self) -> Rows:
        """Rows that count."""
        return np.flatnonzero(self.data.weight > 0)

    @cached_property
    def codes(self) -> NDArray[np.int64] | None:
        """(N,) class codes; None for regression."""
        return None if self.task.kind == "regression" else self.data.target.astype(np.int64)

    @cached_property
    def target_variance(self) -> float:
        """Of the target over the rows that count, in which squared errors are told; 1 where it is constant."""
        target, weight = self.data.target[self.rows], self.data.weight[self.rows]
        return float(np.average((target - np.average(target, weights=weight)) ** 2, weights=weight)) or 1.0

    @property
    def stops_early(self) -> bool:
        """Whether validation rows choose which weights predict."""
        return bool(self.recipe.of(StopMethod))

    def classes_of(self, rows: Rows) -> NDArray[np.int64] | None:
        """The class codes of `rows`; None for regression."""
        return None if self.codes is None else self.codes[rows]

    def split(self, rows: Rows, key: Key) -> tuple[Rows, Rows]:
        """Training and validation rows among distinct `rows`, the same share of each class in both.

        Fewer than ten are too few to set any aside: all train, and validation repeats what training says.
        """
        if len(rows) < _MIN_ROWS_TO_VALIDATE:
            return rows, rows
        split = split_rows(len(rows), key=key, test=0.0, val=self.val_fraction, classes=self.classes_of(rows))
        return rows[split.train], rows[split.val]

    def plan(self, name: str, train_rows: Rows, val_rows: Rows, seed: int) -> Plan:
        """A training of one member."""
        return Plan(name, self.recipe, self.task, train_rows, val_rows, seed)

    def train(self, plans: Sequence[Plan]) -> list[State]:
        """Train all plans to their end."""
        return Fleet(plans, self.data, folder=self.folder, engines=self.engines).run(on_epoch=self.on_epoch)


def check_job(job: Job) -> None:
    """Raise unless the job can be done.

    Args:
        job: Any.

    Raises:
        ConfigError: If `recipe`, `task` or `val_fraction` is not what it must be.
        DataError: If fewer than two rows count, or a target is not finite or no class code.
    """
    check_type("data", job.data, Dataset)
    check_type("task", job.task, Task)
    check_type("recipe", job.recipe, Recipe)
    check_real("val_fraction", job.val_fraction, Interval(0, 1, low_open=True, high_open=True))
    if len(job.rows) < 2:
        raise DataError(f"{len(job.rows)} rows have a weight above zero; an ensemble needs two or more.")
    target, num_classes = job.data.target[job.rows], max(2, job.task.num_outputs)
    is_wrong = ~np.isfinite(target)
    if job.task.kind != "regression":
        is_wrong |= (target < 0) | (target >= num_classes) | (target != np.floor(target))
    if is_wrong.any():
        row = int(job.rows[np.argmax(is_wrong)])
        kind = "finite" if job.task.kind == "regression" else f"a class code in 0 … {num_classes - 1}"
        raise DataError(f"A target must be {kind}, but is {job.data.target[row]!r}.", where=f"row {row + 1}")


def serving(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of a state that predict."""
    return {name: one for name, one in tensors.items() if name in _PREDICTS or name.startswith("encoder.")}


def member_of(plan: Plan, state: State) -> TrainedMember:
    """The network of a finished training, without what only training needed."""
    state = replace(state, tensors=serving(state.tensors))
    return TrainedMember(plan, state, Predictor(plan.recipe, plan.task, state))


def members_of(plans: Sequence[Plan], states: Sequence[State]) -> tuple[list[TrainedMember], list[str]]:
    """The members that can predict, and a note on those that cannot.

    Args:
        plans: Of all members.
        states: Their final states.

    Raises:
        TrainingError: If none can.
    """
    pairs = list(zip(plans, states, strict=True))
    members = [member_of(plan, state) for plan, state in pairs if state.best_epoch]
    failed = [plan.name for plan, state in pairs if not state.best_epoch]
    if not members:
        raise TrainingError(
            f"None of the {len(plans)} members ended with finite weights.",
            repair="Lower the learning rate, or look for extreme values in target and columns.",
        )
    notes = [f"{len(failed)} of {len(plans)} members did not stay finite and are left out: {', '.join(failed)}."]
    return members, notes if failed else []
