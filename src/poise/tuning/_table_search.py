"""From a table to an ensemble of the recipes that suit it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poise._errors import DataError, TrainingError
from poise._random import Key
from poise.ensemble import Average, GreedyResult, greedy_weights
from poise.fleet import Engine, Fleet, choose, default_engines, preparation, seconds_per_epoch
from poise.recipe import Recipe, known
from poise.train import Dataset, Plan, Predictor, State, Task, to_json, write_atomically
from poise.tuning._effort import Effort, Quality, effort_within, full_effort
from poise.tuning._halving import Race
from poise.tuning._propose import Proposer
from poise.tuning._space import Space
from poise.tuning._table import merge_equal_rows, with_numbers
from poise.tuning._table_arena import Fold, OnPlanEpoch, TableArena, make_folds
from poise.tuning._table_space import PORTFOLIO, TABLE_SPACE
from poise.tuning._trial import Trial
from poise.tuning._wide import WidthLimits

_USABLE = 0.8  # of the time, for training; the rest is for encoding, predicting and choosing
_MOST_EPOCHS = 100  # on small tables; more recipes are worth more than longer trainings there
_SECONDS_PER_TRAINING = 0.02  # to set one up, whatever the table
OnTrials = Callable[[Sequence[Trial]], None]


@dataclass(frozen=True, kw_only=True)
class TableSearchOptions:
    """How a table is searched.

    Args:
        space: Of recipes.
        portfolio: Recipes to begin with, by name.
        quality: How much is tried.
        seed: Names all random numbers.
        val_fraction: Share of the rows for validation where there are no folds, in (0, 1).
        time_limit: Seconds for all, or None.
        folder: For checkpoints and the decisions that depend on the machine's speed, or None.
        engines: Who may train, as in `Fleet`.
        on_note: Told what takes long before the first epoch.
        on_epoch: Told after every epoch of every network.
        on_trials: Told all trials after each tick of the race.
    """

    space: Space = TABLE_SPACE
    portfolio: Mapping[str, Recipe] = field(default_factory=lambda: PORTFOLIO)
    quality: Quality = "default"
    seed: int = 0
    val_fraction: float = 0.2
    time_limit: float | None = None
    folder: Path | None = None
    engines: Sequence[Engine] | None = None
    on_note: Callable[[str], None] | None = None
    on_epoch: OnPlanEpoch | None = None
    on_trials: OnTrials | None = None


@dataclass(frozen=True, eq=False)
class TrainedTrial:
    """One trained network of a trial."""

    trial: Trial
    plan: Plan
    state: State

    @property
    def predictor(self) -> Predictor:
        """What it predicts."""
        return Predictor(self.plan.recipe, self.plan.task, self.state)


@dataclass(frozen=True, eq=False)
class TableSearch:
    """What a search found.

    Args:
        data: The rows that were learnt from.
        task: What is predicted.
        effort: What was to be tried.
        trials: All, by number.
        bare: The network without regularization, on the first fold.
        members: Trials that could be in the ensemble, the best first, with a network for each fold.
        choice: Their weights, and what these are worth.
        predictor: The ensemble.
        cut_short: Whether time ended before the search did.
        limits: What its recipes were kept to.
        seconds: That the search took.
    """

    data: Dataset
    task: Task
    effort: Effort
    trials: tuple[Trial, ...]
    bare: TrainedTrial | None
    members: tuple[tuple[TrainedTrial, ...], ...]
    choice: GreedyResult
    predictor: Average
    cut_short: bool
    limits: WidthLimits
    seconds: float

    @property
    def best(self) -> TrainedTrial:
        """The network of the best trial on the first fold."""
        return self.members[self.choice.single][0]


def search_table(data: Dataset, task: Task, options: TableSearchOptions) -> TableSearch:
    """Let recipes compete, train the best on all folds, and average those that together predict best.

    Args:
        data: All rows that may be learnt from; equal rows are merged.
        task: What is predicted.
        options: How.

    Raises:
        DataError: If fewer than two different rows are left.
        TrainingError: If no network ended with finite weights.
    """
    started = time.monotonic()
    merged = merge_equal_rows(with_numbers(data))  # in this order, so that a message counts rows as they came
    if merged.table.height < 2:
        raise DataError(
            f"At least two different rows are needed, but got n_samples = {merged.table.height}.",
            repair="Give more rows, or rows with weight above zero.",
        )
    return _Search(merged, task, options, started).run()


class _Search:
    def __init__(self, data: Dataset, task: Task, options: TableSearchOptions, started: float) -> None:
        self.limits = limits = WidthLimits.of(data.schema)
        options = replace(options, space=limits.space(options.space), portfolio=limits.portfolio(options.portfolio))
        self.data, self.task, self.options, self.started = data, task, options, started
        self.deadline = math.inf if options.time_limit is None else started + options.time_limit
        self.effort = self._plan_effort()
        folds = self._folds(self.effort.num_folds)
        folder = None if options.folder is None else options.folder / "fleet"
        fleet = Fleet([], data, folder=folder, engines=options.engines)
        self.arena = TableArena(
            fleet, task, folds, max_epochs=self.effort.max_epochs, seed=options.seed, deadline=self.deadline,
            on_epoch=options.on_epoch,
        )  # fmt: skip

    def run(self) -> TableSearch:
        options = self.options
        proposer = Proposer(options.space, portfolio=options.portfolio, seed=options.seed)
        race = Race(
            self.arena, proposer, self.effort.halving, on_tick=options.on_trials, out_of_time=self.arena.out_of_time
        )
        trials = race.run()
        finalists = race.best if self.effort.num_folds > 1 else race.complete or race.best
        bare = self._train_folds(finalists, len(trials))
        members = self._members(finalists)
        choice = self._choose(members)
        return TableSearch(
            data=self.data,
            task=self.task,
            effort=self.effort,
            trials=tuple(trials),
            bare=bare,
            members=members,
            choice=choice,
            predictor=_average(members, choice.weights),
            cut_short=self.arena.out_of_time(),
            limits=self.limits,
            seconds=time.monotonic() - self.started,
        )

    # How much

    def _folds(self, num_folds: int) -> list[Fold]:
        options = self.options
        return make_folds(self.data, self.task, num_folds, val_fraction=options.val_fraction, seed=options.seed)

    def _plan_effort(self) -> Effort:
        """What fits into the time. What was decided once is kept in the folder, so that a resumed run repeats it."""
        path = self.options.folder / "effort.json" if self.options.folder else None
        if path is not None and path.exists():
            return Effort(**json.loads(path.read_bytes()))
        effort = self._effort_in_time()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, to_json(asdict(effort)))
        return effort

    def _effort_in_time(self) -> Effort:
        options, num_rows = self.options, self.data.table.height
        fold = self._folds(1)[0]
        plan = Plan("pace", options.space.base, self.task, fold.train, fold.val, options.seed)
        suited = replace(plan.recipe.budget, max_epochs=None).epochs_for(len(fold.train))
        epochs = min(suited, _MOST_EPOCHS)
        full = full_effort(options.quality, num_rows, epochs)
        offered = default_engines() if options.engines is None else options.engines
        note = preparation([plan], offered)
        if note and options.on_note is not None:
            options.on_note(note)
        if options.time_limit is None:
            return full
        engine = choose([plan], offered)[0].engine
        before = time.monotonic()
        engine.prepare([plan])
        self.deadline += time.monotonic() - before  # once on a machine, and no part of any search
        pace = seconds_per_epoch(plan, self.data, engine) + _SECONDS_PER_TRAINING / epochs
        left = max(0.0, self.deadline - time.monotonic()) * _USABLE * engine.parallelism()
        return effort_within(options.quality, num_rows, epochs, left / pace)

    # On all folds

    def _train_folds(self, finalists: list[Trial], number: int) -> TrainedTrial | None:
        """Train the finalists on the other folds, where the poorest leave after the second, and the bare network."""
        last, num_folds = self.arena.max_epochs, len(self.arena.folds)
        bare_recipe = self.limits.recipe(known("bare"))
        self.arena.enter_fold(0, {number: bare_recipe})
        targets = {(number, 0): last}
        if num_folds > 1:
            targets |= self._enter(1, finalists)
        self.arena.advance_folds(targets)
        if num_folds > 2:
            survivors = sorted(finalists, key=lambda one: self._loss(one, (0, 1)))[: self.effort.num_survivors]
            targets = {}
            for fold in range(2, num_folds):
                targets |= self._enter(fold, survivors)
            self.arena.advance_folds(targets)
        for trial in finalists:
            folds = [fold for fold in range(num_folds) if self._has_trained(trial, fold)]
            trial.folds = {fold: self.arena.state(trial.number, fold).val_loss for fold in folds}
        bare = TrainedTrial(Trial(number, bare_recipe, "bare"), self.arena.plan(number), self.arena.state(number))
        return bare if bare.state.best_epoch else None

    def _enter(self, fold: int, trials: Sequence[Trial]) -> dict[tuple[int, int], int]:
        self.arena.enter_fold(fold, {one.number: one.recipe for one in trials})
        return {(one.number, fold): self.arena.max_epochs for one in trials}

    def _loss(self, trial: Trial, folds: Sequence[int]) -> float:
        return math.fsum(self.arena.state(trial.number, fold).val_loss for fold in folds)

    def _has_trained(self, trial: Trial, fold: int) -> bool:
        return self.arena.has(trial.number, fold) and self.arena.state(trial.number, fold).best_epoch > 0

    # The ensemble

    def _members(self, finalists: list[Trial]) -> tuple[tuple[TrainedTrial, ...], ...]:
        """Trials with a network for every fold; where time left none of them, those with one for the first fold."""
        folds = range(len(self.arena.folds))
        found = [one for one in finalists if all(self._has_trained(one, fold) for fold in folds)]
        if not found:
            folds = range(1)
            found = [one for one in finalists if self._has_trained(one, 0)]
        if not found:
            raise TrainingError(
                "No network ended with finite weights.",
                repair="Allow more time, lower the learning rate, or look for extreme values in target and columns.",
            )
        found.sort(key=lambda one: self._loss(one, folds))
        arena = self.arena
        return tuple(
            tuple(TrainedTrial(one, arena.plan(one.number, fold), arena.state(one.number, fold)) for fold in folds)
            for one in found
        )

    def _choose(self, members: tuple[tuple[TrainedTrial, ...], ...]) -> GreedyResult:
        folds = self.arena.folds[: len(members[0])]
        rows = np.concatenate([fold.val for fold in folds])
        held = [
            np.concatenate([self.arena.predictions(networks[0].trial.number, fold) for fold in range(len(folds))])
            for networks in members
        ]
        return greedy_weights(
            np.stack(held),
            self._in_units(rows),
            weight=self.data.weight[rows],
            task_kind=self.task.kind,
            key=Key(self.options.seed).stream("greedy"),
        )

    def _in_units(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        target = self.data.target[rows]
        return target if self.task.kind == "regression" else target.astype(np.int64)


def _average(members: Sequence[Sequence[TrainedTrial]], weights: NDArray[np.float64]) -> Average:
    used = [(networks, weight) for networks, weight in zip(members, weights, strict=True) if weight > 0]
    predictors = [one.predictor for networks, _ in used for one in networks]
    return Average(predictors, [float(weight) / len(networks) for networks, weight in used for _ in networks])
