"""Scores of all candidates on the test rows, once, at the very end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poise._random import Key
from poise.ensemble import Average, Predicts
from poise.estimators._baseline import NAME, Baseline
from poise.estimators._bootstrap import Statistic, bootstrap
from poise.estimators._candidates import BEST, ENSEMBLE, Candidates, Trained
from poise.estimators._result import Candidate, Interval
from poise.functional.predictions import log_loss, of_target
from poise.recipe import SOURCES, to_toml
from poise.train import Dataset, Task
from poise.tuning import TableSearch

_MOST_TRAINING_ROWS = 10_000


@dataclass(frozen=True, eq=False)
class _Judge:
    """Losses and scores of predictions, in the same units for every model.

    Args:
        scale: Variance of the target over the training rows, in which squared errors are told.
    """

    task: Task
    scale: float

    def row_losses(self, predictions: NDArray[np.float64], target: NDArray[np.float64]) -> Tensor:
        if self.task.kind == "regression":
            return torch.from_numpy((predictions - target) ** 2 / self.scale)
        return torch.from_numpy(log_loss(of_target(predictions, target.astype(np.int64))))

    def in_units(self, loss: float) -> float:
        """A loss in the target's own units, in ours."""
        return loss / self.scale if self.task.kind == "regression" else loss

    def scorer(self, predictions: NDArray[np.float64], target: NDArray[np.float64]) -> Statistic:
        """The score as a function of the rows that count."""
        if self.task.kind != "regression":
            hits = torch.from_numpy((predictions.argmax(axis=1) == target).astype(np.float64))
            return lambda rows: hits[rows].mean()
        values, errors = torch.from_numpy(target.copy()), torch.from_numpy((predictions - target) ** 2)

        def r_squared(rows: Tensor) -> Tensor:
            spread = values[rows].var(correction=0)
            return 1 - errors[rows].mean() / spread if spread > 0 else torch.zeros((), dtype=torch.float64)

        return r_squared


def score_candidates(candidates: Candidates, baseline: Baseline, test: Dataset, key: Key) -> tuple[Candidate, ...]:
    """Every network and the baseline on training, validation and test rows.

    Args:
        candidates: The trained networks.
        baseline: The trees.
        test: Rows that nothing has looked at.
        key: Of the bootstrap; all models share its resamples.
    """
    judge = _Judge(candidates.chosen.plan.task, candidates.chosen.state.target_scale**2)
    ensemble = candidates.ensemble
    models: list[Predicts] = [
        *(one.predictor for one in candidates.trained),
        *([] if ensemble is None else [ensemble]),
    ]
    predictions = [model.predict(test.table).numpy() for model in models]
    measured = _on_test([*predictions, baseline.predict(test.table)], judge, test, key)
    rows = [
        _network_row(one, candidates.name == one.name, candidates.search, *intervals)
        for one, intervals in zip(candidates.trained, measured, strict=False)
    ]
    if ensemble is not None:
        rows.append(_ensemble_row(candidates, ensemble, judge, *measured[len(rows)]))
    return (*rows, _baseline_row(baseline, candidates, judge, *measured[-1]))


def _on_test(
    predictions: list[NDArray[np.float64]], judge: _Judge, test: Dataset, key: Key
) -> list[tuple[Interval, Interval]]:
    """Loss and score of each model."""
    losses = [_mean_of(judge.row_losses(one, test.target)) for one in predictions]
    scores = [judge.scorer(one, test.target) for one in predictions]
    intervals = bootstrap([*losses, *scores], len(test.target), key)
    return list(zip(intervals[: len(losses)], intervals[len(losses) :], strict=True))


def _mean_of(values: Tensor) -> Statistic:
    return lambda rows: values[rows].mean()


def _source(one: Trained, search: TableSearch | None) -> str:
    if one.name in SOURCES:
        return SOURCES[one.name]
    if search is None:
        return "your own recipe"
    trial = search.best.trial
    return f"trial {trial.number} of {len(search.trials)}, proposed by {trial.origin!r}"


def _network_row(
    one: Trained, is_chosen: bool, search: TableSearch | None, test_loss: Interval, test_score: Interval
) -> Candidate:
    best = one.history[one.state.best_epoch - 1]
    return Candidate(
        name=one.name,
        source=_source(one, search),
        chosen=is_chosen,
        train_loss=best.train_loss,
        val_loss=best.val_loss,
        test_loss=test_loss,
        train_score=best.train_score,
        val_score=best.val_score,
        test_score=test_score,
        epochs=one.state.epoch,
        best_epoch=one.state.best_epoch,
        seconds=one.history[-1].seconds,
        recipe_toml=to_toml(one.plan.recipe),
        note="stopped by the time limit" if one.state.stopped == "time" else "",
        history=one.history,
    )


def _ensemble_row(
    candidates: Candidates, ensemble: Average, judge: _Judge, test_loss: Interval, test_score: Interval
) -> Candidate:
    # Its networks have learnt from most of these rows each, so this is nearly its training loss.
    seen = _some_rows(candidates.data)
    learnt, every = ensemble.predict(seen.table).numpy(), torch.arange(seen.table.height)
    search = candidates.search
    return Candidate(
        name=candidates.name,
        source=f"average of {len(ensemble.members)} networks that the search trained",
        chosen=True,
        train_loss=float(judge.row_losses(learnt, seen.target).mean()),
        val_loss=None if search is None else judge.in_units(search.choice.loss),
        test_loss=test_loss,
        train_score=float(judge.scorer(learnt, seen.target)(every)),
        val_score=None,
        test_score=test_score,
        epochs=0,
        best_epoch=0,
        seconds=0.0 if search is None else search.seconds,
    )


def _some_rows(data: Dataset) -> Dataset:
    """All rows, or of very many every second, third, ... one."""
    rows = np.arange(0, data.table.height, max(1, data.table.height // _MOST_TRAINING_ROWS))
    return Dataset(data.table[rows], data.schema, data.target[rows], data.weight[rows])


def _baseline_row(
    baseline: Baseline, candidates: Candidates, judge: _Judge, test_loss: Interval, test_score: Interval
) -> Candidate:
    data = candidates.data
    learnt, every = baseline.predict(data.table), torch.arange(data.table.height)
    return Candidate(
        name=NAME,
        source="scikit-learn's defaults, fitted on training and validation rows",
        chosen=False,
        train_loss=float(judge.row_losses(learnt, data.target).mean()),
        val_loss=None,
        test_loss=test_loss,
        train_score=float(judge.scorer(learnt, data.target)(every)),
        val_score=None,
        test_score=test_score,
        epochs=0,
        best_epoch=0,
        seconds=baseline.seconds,
    )


def verdict(scored: tuple[Candidate, ...], task: Task) -> str:
    """One sentence on what regularization bought, with numbers."""
    chosen = next(one for one in scored if one.chosen)
    bare = next((one for one in scored if one.name == "bare"), None)
    if bare is None or chosen.name == "bare":
        return (
            f"No recipe validated better than the bare network: test {task.loss_name} {chosen.test_loss.value:.4f}, "
            f"{task.score_name} {chosen.test_score.value:.4f}."
        )
    subject = f"The {chosen.name}" if chosen.name in (ENSEMBLE, BEST) else f"Recipe {chosen.name!r}"
    return (
        f"{subject} changed the test {task.loss_name} from {bare.test_loss.value:.4f} to "
        f"{chosen.test_loss.value:.4f}, the {task.score_name} from {bare.test_score.value:.4f} to "
        f"{chosen.test_score.value:.4f}, and the gap between test and training from {bare.gap:+.4f} to "
        f"{chosen.gap:+.4f}."
    )
