"""`poise.fit`: from a table to a network that is proven on rows that nothing has looked at."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from poise._checks import Interval, check_choice, check_real
from poise._errors import ConfigError
from poise._random import Key
from poise.data import Schema, Split, check_columns, duplicated_rows, split_rows
from poise.estimators._baseline import Baseline
from poise.estimators._candidates import Candidates, OnEpoch, TrainingOptions, train_candidates
from poise.estimators._classifier import PoiseClassifier
from poise.estimators._regressor import PoiseRegressor
from poise.estimators._result import ColumnNote, FitResult, Progress
from poise.estimators._run_folder import config_of, finish, finished
from poise.estimators._scores import score_candidates, verdict
from poise.estimators._search import search_candidates, search_note
from poise.recipe import Recipe, known, validate_recipe
from poise.train import Dataset, Plan, State, Task
from poise.tuning import (
    QUALITIES,
    Quality,
    RunFolder,
    StudyFile,
    environment,
    feature_schema,
    read_labeled,
    source_name,
)

TEST_FRACTION = 0.2
# What the best published network takes for a single fit with its defaults on two cores, or less.
_LEAST_SECONDS = 8.0
_SECONDS_PER_ROW = 0.006
_TIMES: Mapping[Quality, float] = {"fast": 0.25, "default": 1.0, "best": 8.0}


@dataclass(frozen=True, eq=False)
class _Table:
    """The table of a run, split before anything has looked at it."""

    learn: Dataset
    test: Dataset
    task: Task
    classes: NDArray[Any] | None
    warnings: tuple[str, ...]


def fit(
    data: Any,
    *,
    target: str,
    out: str | Path | None = None,
    time_limit: float | Literal["auto"] | None = None,
    seed: int = 0,
    recipe: Recipe | str = "auto",
    quality: Quality = "default",
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> FitResult:
    """Search for the recipes that suit a table, average the best networks, and prove it on untouched test rows.

    A fifth of the rows is set aside first. On the rest recipes compete, the best train on all folds, and those that
    together predict best make the ensemble. It, its best network, the bare network without regularization and
    scikit-learn's HistGradientBoosting are scored on the test rows once, with 95 % bootstrap intervals.

    Args:
        data: Path of a CSV, TSV or Parquet file, or a frame.
        target: Name of the column to predict.
        out: Run folder for bundle, config, metrics and checkpoints; None keeps nothing on disk.
        time_limit: Seconds for all trainings together, > 0; None for no limit; "auto" for 8 seconds, for larger tables
            6 ms a row; a quarter of that for quality "fast", 8 times as much for "best". What is tried is planned to
            fit, so a limit that binds makes the result depend on the machine's speed.
        seed: Names all random numbers.
        recipe: "auto" to search, or one by name or value, which is then compared with the bare network.
        quality: How much a search tries: "fast" a few recipes on one split, "default" up to 32 and five folds,
            "best" up to 128 and five.
        resume: Continue the run in `out`; one that came to its end is only read again.
        progress: Called after every epoch.

    Returns:
        Scores, intervals, histories and the verdict.

    Raises:
        ConfigError: If a setting is out of its range.
        DataError: If the data cannot be learnt from.
        ResumeError: If `out` holds another run.

    Example:
        >>> import polars
        >>> from poise import fit
        >>> table = polars.DataFrame({"x": list(range(60)), "y": [i % 7 for i in range(60)], "z": ["a", "b"] * 30})
        >>> result = fit(table, target="z", recipe="cocktail")
        >>> result.task, [candidate.name for candidate in result.candidates]
        ('binary', ['bare', 'cocktail', 'HistGradientBoosting'])
    """
    started = time.perf_counter()
    check_choice("quality", quality, QUALITIES)
    recipes = _recipes(recipe)
    source, table = source_name(data), _read(data, target, seed)
    seconds = _seconds(time_limit, table.learn.table.height, quality)
    with RunFolder(out, resume=resume) as folder:
        config = config_of(source=source, target=target, seed=seed, time_limit=seconds, recipes=recipes)
        folder.write_config(config | ({"quality": quality} if recipes is None else {}))
        before = finished(folder)
        if before is not None:
            return before
        options = TrainingOptions(
            seed,
            time_limit=seconds,
            folder=folder.checkpoints,
            on_note=_noting(progress),
            quality=quality,
            on_trials=None if folder.path is None else StudyFile(folder.path / "study.db").update,
        )
        on_epoch = _reporting(progress, 0 if recipes is None else len(recipes))
        if recipes is None:
            candidates = search_candidates(table.learn, table.task, options, on_epoch)
        else:
            candidates = train_candidates(table.learn, table.task, recipes, options, on_epoch)
        baseline = Baseline(candidates.data, table.task, seed)
        scored = score_candidates(candidates, baseline, table.test, Key(seed).stream("bootstrap"))
        result = FitResult(
            source=source,
            target=target,
            task=table.task.kind,
            score_name=table.task.score_name,
            loss_name=table.task.loss_name,
            num_train=len(candidates.chosen.plan.train_rows),
            num_val=len(candidates.chosen.plan.val_rows),
            num_test=table.test.table.height,
            columns=tuple(ColumnNote(one.name, one.kind, one.note) for one in table.learn.schema.columns),
            candidates=scored,
            verdict=verdict(scored, table.task),
            seconds=time.perf_counter() - started,
            run_folder="" if out is None else str(out),
            warnings=table.warnings + _training_notes(candidates, recipes),
            environment=environment(seed),
            search=None if candidates.search is None else search_note(candidates.search),
        )
        finish(folder, result, _estimator(candidates, table), target)
    return result


def _recipes(recipe: Recipe | str) -> Mapping[str, Recipe] | None:
    """The recipes to train; None for a search."""
    if isinstance(recipe, Recipe):
        validate_recipe(recipe)
        return {"bare": known("bare"), "custom": recipe}
    if not isinstance(recipe, str):
        raise ConfigError(f"`recipe` must be a Recipe or a name, but got recipe={recipe!r}.")
    return None if recipe == "auto" else {"bare": known("bare"), recipe: known(recipe)}


def _read(data: Any, target: str, seed: int) -> _Table:
    table = read_labeled(data, target)
    features = table.features
    key = Key(seed).stream("test")
    split = split_rows(features.height, key=key, test=TEST_FRACTION, val=0.0, classes=table.codes)
    schema = feature_schema(features[split.train])
    check_columns(schema, features)  # a message about a bad cell counts the rows of the file
    learn, test = (table.dataset(schema, rows) for rows in (split.train, split.test))
    return _Table(learn, test, table.task, table.classes, _notes(features, schema, split))


def _notes(features: pl.DataFrame, schema: Schema, split: Split) -> tuple[str, ...]:
    shared = duplicated_rows(features.select(schema.feature_names), split).num_test
    if not shared:
        return ()
    return (f"{shared:,} of {len(split.test):,} test rows have the same features as a training row.",)


def _training_notes(candidates: Candidates, recipes: Mapping[str, Recipe] | None) -> tuple[str, ...]:
    failed = [f"The network of recipe {name!r} ended with non-finite weights." for name in candidates.failed]
    if recipes is None:
        search = candidates.search
        ended = "The time limit ended the search early; more time may do better."
        notes = [] if search is None else [search.limits.note, ended if search.cut_short else ""]
        return (*failed, *(note for note in notes if note))
    cut = [
        f"{one.name} to {one.plan.max_epochs} epochs"
        for one in candidates.trained
        if one.plan.max_epochs < recipes[one.name].budget.epochs_for(len(one.plan.train_rows))
        or one.state.stopped == "time"
    ]
    return (*failed, *([f"The time limit cut {', '.join(cut)}; more time may do better."] if cut else []))


def _seconds(time_limit: float | Literal["auto"] | None, num_rows: int, quality: Quality) -> float | None:
    if time_limit == "auto":
        return max(_LEAST_SECONDS, num_rows * _SECONDS_PER_ROW) * _TIMES[quality]
    if time_limit is not None:
        check_real("time_limit", time_limit, Interval(0, low_open=True))
    return time_limit


def _estimator(candidates: Candidates, table: _Table) -> PoiseClassifier | PoiseRegressor:
    estimator: PoiseClassifier | PoiseRegressor = PoiseRegressor()
    if table.classes is not None:
        estimator = PoiseClassifier()
        estimator.classes_ = table.classes
    names = table.learn.table.columns
    estimator.n_features_in_ = len(names)
    estimator.feature_names_in_ = np.array(names, dtype=object)
    return estimator._adopt(candidates)


def _reporting(progress: Callable[[Progress], None] | None, num_networks: int) -> OnEpoch | None:
    if progress is None:
        return None

    def on_epoch(index: int, plan: Plan, state: State) -> None:
        last = state.history[-1] if state.history else None
        progress(
            Progress(
                name=plan.name,
                index=index,
                num_networks=num_networks,
                epoch=state.epoch,
                max_epochs=plan.max_epochs,
                val_loss=last.val_loss if last else math.inf,
                seconds=last.seconds if last else 0.0,
            )
        )

    return on_epoch


def _noting(progress: Callable[[Progress], None] | None) -> Callable[[str], None] | None:
    if progress is None:
        return None
    return lambda note: progress(Progress("", 0, 0, 0, 0, None, 0.0, note=note))
