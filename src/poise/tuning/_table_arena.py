"""Trials on a table, trained by fleets."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from poise._random import Key
from poise.data import fold_rows, split_rows
from poise.fleet import Fleet
from poise.functional.predictions import log_loss, of_target
from poise.recipe import Recipe
from poise.train import Dataset, Plan, State, Task
from poise.tuning._arena import Arena

Rows = NDArray[np.int64]
OnPlanEpoch = Callable[[int, Plan, State], None]
_FEWEST_TO_VALIDATE = 10


@dataclass(frozen=True, eq=False)
class Fold:
    """Rows to learn from and rows to validate on."""

    train: Rows
    val: Rows


def make_folds(data: Dataset, task: Task, num_folds: int, *, val_fraction: float, seed: int) -> list[Fold]:
    """`num_folds` folds that share the rows and classes out, or for one fold a single split.

    With fewer than ten rows every row learns and validates, since none can be spared.

    Args:
        data: All rows that may be learnt from.
        task: What is predicted.
        num_folds: ≥ 1.
        val_fraction: Share for validation where there is a single split, in (0, 1).
        seed: Names the shuffle.
    """
    num_rows = data.table.height
    every = np.arange(num_rows)
    if num_rows < _FEWEST_TO_VALIDATE:
        return [Fold(every, every)]
    classes = None if task.kind == "regression" else data.target.astype(np.int64)
    if num_folds == 1:
        key = Key(seed).stream("split")
        split = split_rows(num_rows, key=key, test=0.0, val=val_fraction, classes=classes)
        return [Fold(split.train, split.val)]
    held = fold_rows(num_rows, num_folds, key=Key(seed), classes=classes)
    return [Fold(np.setdiff1d(every, rows, assume_unique=True), rows) for rows in held]


class TableArena(Arena):
    """Trains recipes for tables; they compete on the first fold, and those that are left go through the others.

    Args:
        fleet: That trains, empty at first.
        task: What is predicted.
        folds: One or more.
        max_epochs: Of every training, ≥ 1.
        seed: Names the random numbers of all trainings.
        deadline: `time.monotonic()` after which nothing trains; infinite for none.
        on_epoch: Told after every epoch, as by `Fleet.run`.
    """

    def __init__(
        self,
        fleet: Fleet,
        task: Task,
        folds: Sequence[Fold],
        *,
        max_epochs: int,
        seed: int = 0,
        deadline: float = math.inf,
        on_epoch: OnPlanEpoch | None = None,
    ) -> None:
        self.fleet, self.task, self.folds = fleet, task, folds
        self.max_epochs, self.seed, self.deadline, self.on_epoch = max_epochs, seed, deadline, on_epoch
        self._index: dict[tuple[int, int], int] = {}
        self._best: dict[tuple[int, int], NDArray[np.float64]] = {}

    def enter(self, entries: Mapping[int, Recipe]) -> None:
        self.enter_fold(0, entries)

    def enter_fold(self, fold: int, entries: Mapping[int, Recipe]) -> None:
        """Take in trials on the fold `fold`."""
        first = len(self.fleet.plans)
        self.fleet.extend([self._plan(number, fold, recipe) for number, recipe in entries.items()])
        self._index |= {(number, fold): first + position for position, number in enumerate(entries)}

    def _plan(self, number: int, fold: int, recipe: Recipe) -> Plan:
        rows = self.folds[fold]
        # Each trial has random numbers of its own, so that members of an ensemble differ in more than their doses.
        seed = Key(self.seed).stream("trial", number).stream("fold", fold).seed % 2**31
        plan = Plan(f"trial {number}, fold {fold}", recipe, self.task, rows.train, rows.val, seed)
        # A recipe may ask for fewer epochs, at whose end its schedules end too.
        return plan.with_max_epochs(min(self.max_epochs, recipe.budget.max_epochs or self.max_epochs))

    def advance(self, targets: Mapping[int, int]) -> None:
        self.advance_folds({(number, 0): until for number, until in targets.items()})

    def advance_folds(self, targets: Mapping[tuple[int, int], int]) -> None:
        """Train trials on folds, named by both, until they have done so many epochs."""
        limit = None if math.isinf(self.deadline) else max(0.0, self.deadline - time.monotonic())
        wanted = {self._index[name]: until for name, until in targets.items()}
        self.fleet.advance(wanted, time_limit=limit, on_epoch=self.on_epoch)

    def out_of_time(self) -> bool:
        """Whether the deadline has passed."""
        return time.monotonic() >= self.deadline

    # How trials stand

    def has(self, number: int, fold: int) -> bool:
        """Whether a trial was entered on a fold."""
        return (number, fold) in self._index

    def state(self, number: int, fold: int = 0) -> State:
        """Where the training of a trial on a fold stands."""
        return self.fleet.states[self._index[number, fold]]

    def plan(self, number: int, fold: int = 0) -> Plan:
        """The training of a trial on a fold."""
        return self.fleet.plans[self._index[number, fold]]

    def curve(self, number: int) -> list[float]:
        return [record.val_loss for record in self.state(number).history]

    def failed(self, number: int) -> bool:
        return self.state(number).stopped == "non-finite"

    def leave(self, numbers: Iterable[int]) -> None:
        self.fleet.release([self._index[number, 0] for number in numbers])

    def seconds(self, number: int) -> float:
        history = self.state(number).history
        return history[-1].seconds if history else 0.0

    def engine(self, number: int) -> str:
        return self.fleet.choices[self._index[number, 0]].engine.name

    def noise(self) -> float:
        """Standard error of the difference of the validation losses of the two best trials, row by row."""
        standing = [number for number, fold in self._index if fold == 0 and self.state(number).tensors]
        ranked = sorted((min(self.curve(number)), number) for number in standing if self.curve(number))
        if len(ranked) < 2:
            return 0.0
        places = [(number, self.state(number).best_epoch) for _, number in ranked[:2]]
        # The best of one tick are mostly those of the tick before.
        self._best = {
            place: self._best[place] if place in self._best else self._row_losses(place[0]) for place in places
        }
        first, second = self._best.values()
        return float((first - second).std() / math.sqrt(len(first)))

    def _row_losses(self, number: int) -> NDArray[np.float64]:
        target = self.fleet.data.target[self.folds[0].val]
        predictions = self.predictions(number)
        if self.task.kind == "regression":
            scaled: NDArray[np.float64] = ((predictions - target) / self.state(number).target_scale) ** 2
            return scaled
        return log_loss(of_target(predictions, target.astype(np.int64)))

    def predictions(self, number: int, fold: int = 0) -> NDArray[np.float64]:
        """Of the fold's validation rows: (N, classes) probabilities, or (N,) values."""
        return self.fleet.validation_predictions(self._index[number, fold]).numpy()
