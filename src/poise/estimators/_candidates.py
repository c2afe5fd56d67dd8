"""Trains given recipes for one table and lets validation choose."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from poise._errors import DataError, TrainingError
from poise.ensemble import Average, Predicts
from poise.fleet import Engine, Fleet, preparation, within_time
from poise.recipe import Recipe
from poise.train import Dataset, Epoch, Plan, Predictor, State, Task, to_json, write_atomically
from poise.tuning import OnTrials, Quality, TableSearch, make_folds, merge_equal_rows, with_numbers

OnEpoch = Callable[[int, Plan, State], None]
BEST, ENSEMBLE = "best network", "ensemble"  # what a search finds


@dataclass(frozen=True, eq=False)
class Trained:
    """One candidate after training."""

    plan: Plan
    state: State
    predictor: Predictor

    @property
    def name(self) -> str:
        """Name of the recipe."""
        return self.plan.name

    @property
    def history(self) -> tuple[Epoch, ...]:
        """One record an epoch."""
        return tuple(self.state.history)


@dataclass(frozen=True, eq=False)
class Candidates:
    """The networks that are compared, the data they were trained on, and what validation chose.

    Args:
        data: Rows that were learnt from, training and validation alike.
        trained: The networks.
        chosen: The one with the lowest validation loss.
        failed: Names of those that ended with numbers that are not finite.
        search: Where the networks come from a search, which may have found an ensemble.
    """

    data: Dataset
    trained: tuple[Trained, ...]
    chosen: Trained
    failed: tuple[str, ...]
    search: TableSearch | None = None

    @property
    def ensemble(self) -> Average | None:
        """What the search found, if it is more than one network."""
        found = None if self.search is None else self.search.predictor
        return found if found is not None and len(found.members) > 1 else None

    @property
    def served(self) -> Predicts:
        """What predicts from now on."""
        return self.ensemble or self.chosen.predictor

    @property
    def name(self) -> str:
        """Of what predicts."""
        return self.chosen.name if self.ensemble is None else ENSEMBLE


@dataclass(frozen=True)
class TrainingOptions:
    """How candidates are trained.

    Args:
        seed: Names all random numbers.
        val_fraction: Share of the rows for validation, in (0, 1).
        time_limit: Seconds for all candidates together, or None.
        folder: For checkpoints, or None.
        on_note: Told what takes long before the first epoch.
        engines: Who may train, as in `Fleet`.
        quality: How much a search tries.
        on_trials: Told all trials of a search after each tick of its race.
    """

    seed: int = 0
    val_fraction: float = 0.2
    time_limit: float | None = None
    folder: Path | None = None
    on_note: Callable[[str], None] | None = None
    engines: Sequence[Engine] | None = None
    quality: Quality = "default"
    on_trials: OnTrials | None = None


def train_candidates(
    data: Dataset,
    task: Task,
    recipes: Mapping[str, Recipe],
    options: TrainingOptions,
    on_epoch: OnEpoch | None = None,
) -> Candidates:
    """Train every recipe on the same rows and choose the one with the lowest validation loss.

    Args:
        data: All rows that may be learnt from; equal rows are merged.
        task: What to predict.
        recipes: By name.
        options: Seed, validation share, time and folder.
        on_epoch: Called after every epoch of every network.

    Raises:
        DataError: If fewer than two different rows are left.
        TrainingError: If no candidate ended with finite weights.
    """
    merged = merge_equal_rows(with_numbers(data))  # in this order, so that a message counts rows as they came
    if merged.table.height < 2:
        raise DataError(
            f"At least two different rows are needed, but got n_samples = {merged.table.height}.",
            repair="Give more rows, or rows with weight above zero.",
        )
    rows = make_folds(merged, task, 1, val_fraction=options.val_fraction, seed=options.seed)[0]
    plans = [Plan(name, recipe, task, rows.train, rows.val, options.seed) for name, recipe in recipes.items()]
    states = _train(plans, merged, options, on_epoch)
    trained = tuple(
        Trained(plan, state, Predictor(plan.recipe, task, state)) for plan, state in states if state.best_epoch
    )
    failed = tuple(plan.name for plan, state in states if not state.best_epoch)
    if not trained:
        raise TrainingError(
            f"No network ended with finite weights ({', '.join(failed)}).",
            repair="Lower the learning rate, or look for extreme values in target and columns.",
        )
    return Candidates(merged, trained, min(trained, key=lambda one: one.state.val_loss), failed)


def _train(
    plans: list[Plan], data: Dataset, options: TrainingOptions, on_epoch: OnEpoch | None
) -> list[tuple[Plan, State]]:
    note = preparation(plans, options.engines)
    if note and options.on_note is not None:
        options.on_note(note)
    if options.time_limit is not None:
        plans = _fitted_plans(plans, data, options)
    fleet = Fleet(plans, data, folder=options.folder, engines=options.engines)
    states = fleet.run(time_limit=options.time_limit, on_epoch=on_epoch)
    return list(zip(plans, states, strict=True))


def _fitted_plans(plans: list[Plan], data: Dataset, options: TrainingOptions) -> list[Plan]:
    """Plans within the time limit. What was measured once is kept in the folder, so that a resumed run repeats it."""
    path = options.folder / "epochs.json" if options.folder else None
    if path is not None and path.exists():
        return [plan.with_max_epochs(epochs) for plan, epochs in zip(plans, json.loads(path.read_bytes()), strict=True)]
    fitted = within_time(plans, data, options.time_limit or 0.0, engines=options.engines)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, to_json([plan.max_epochs for plan in fitted]))
    return fitted
