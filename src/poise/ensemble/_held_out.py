"""Predictions for training rows by the members that have not seen them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from poise._errors import DataError
from poise._random import Key
from poise.ensemble._job import Job, TrainedMember
from poise.train import Rows, Task

_TINY = 1e-15  # a probability of zero costs 34.5 nats, not infinitely many
_MAX_RESAMPLES = 1000
_MIN_RESAMPLES = 200
_MAX_DRAWS = 20_000_000


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    Args:
        value: The number.
        low: 2.5 % of the resamples lie below.
        high: 2.5 % lie above.
    """

    value: float
    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What members say of the rows that they were not trained on, and how good that is.

    ŷ(x_i) = Σ_{m ∈ M_i} ŷ_m(x_i) / |M_i|, M_i the members that saw row i neither in training nor, where validation
    chose their weights, in validation. An average over fewer members than the ensemble has is a little worse than it.

    Args:
        predictions: Probabilities or values; NaN where no member can judge.
        num_members: |M_i|.
        loss: Weighted mean over the rows that have a prediction: log loss in nats, or squared error in units of the
            target's variance. The interval is a bootstrap over rows.
        score: Accuracy, or R², likewise.
        is_untouched: Whether the rows took no part in the training at all. If not, they chose the epoch whose weights
            predict, and loss and score are too good by a little.

    Shape:
        predictions: (N, number of classes), or (N,). num_members: (N,).
    """

    predictions: NDArray[np.float64]
    num_members: NDArray[np.int64]
    loss: Estimate
    score: Estimate
    is_untouched: bool = True


def held_out(job: Job, judged: Iterable[tuple[TrainedMember, Rows]], *, is_untouched: bool = True) -> HeldOut:
    """Average what each member says of its own held-out rows.

    Args:
        job: Supplies data and task.
        judged: Members with the rows that each may judge.
        is_untouched: As in `HeldOut`.

    Raises:
        DataError: If no row can be judged.
    """
    num_rows = job.data.table.height
    shape = (num_rows,) if job.task.kind == "regression" else (num_rows, max(2, job.task.num_outputs))
    total, count = np.zeros(shape), np.zeros(num_rows, dtype=np.int64)
    for member, rows in judged:
        if len(rows):
            total[rows] += member.predictor.predict(job.data.table[rows]).numpy()
            count[rows] += 1
    seen = job.rows[count[job.rows] > 0]
    if len(seen) == 0:
        raise DataError("No row was left out by any member.", repair="Give more rows or more members.")
    with np.errstate(invalid="ignore"):
        predictions = (total.T / np.where(count > 0, count, np.nan)).T
    loss, score = measure(
        job.task,
        predictions[seen],
        job.data.target[seen],
        job.data.weight[seen],
        scale=job.target_variance,
        key=job.key.stream("held out"),
    )
    return HeldOut(predictions, count, loss, score, is_untouched)


def row_losses(
    task: Task, predictions: NDArray[np.float64], target: NDArray[np.float64], scale: float = 1.0
) -> NDArray[np.float64]:
    """Log losses in nats, or squared errors over `scale`, of predictions (N, …)."""
    if task.kind == "regression":
        return np.asarray((predictions - target) ** 2 / scale)
    picked = predictions[np.arange(len(target)), target.astype(np.int64)]
    return np.asarray(-np.log(np.clip(picked, _TINY, 1)))


def measure(
    task: Task,
    predictions: NDArray[np.float64],
    target: NDArray[np.float64],
    weight: NDArray[np.float64],
    *,
    scale: float,
    key: Key,
) -> tuple[Estimate, Estimate]:
    """Weighted loss and score with percentile intervals over resampled rows.

    Args:
        task: What is predicted.
        predictions: (N, C) probabilities, or (N,) values.
        target: (N,).
        weight: (N,), ≥ 0, not all zero.
        scale: Regression: what squared errors are divided by.
        key: Names the resamples.

    Reference: Efron and Tibshirani, "An introduction to the bootstrap", 1993, section 13.3.
    """
    sums = _columns(task, predictions, target, weight, scale)
    num_rows = len(target)
    num_resamples = max(_MIN_RESAMPLES, min(_MAX_RESAMPLES, _MAX_DRAWS // num_rows))
    drawn = (key.at(index).integers(num_rows, num_rows).numpy() for index in range(num_resamples))
    resampled = np.stack([sums[rows].sum(axis=0) for rows in drawn])
    resampled = resampled[resampled[:, 0] > 0]
    values = _loss_and_score(task, sums.sum(axis=0)[None])[0]
    ends = np.quantile(_loss_and_score(task, resampled), [0.025, 0.975], axis=0)
    loss, score = (Estimate(float(values[one]), *ends[:, one].tolist()) for one in range(2))
    return loss, score


def _columns(
    task: Task,
    predictions: NDArray[np.float64],
    target: NDArray[np.float64],
    weight: NDArray[np.float64],
    scale: float,
) -> NDArray[np.float64]:
    """(N, 4 or 5) numbers whose sums over rows hold loss and score."""
    losses = row_losses(task, predictions, target, scale)
    if task.kind != "regression":
        return np.stack([weight, weight * losses, weight * (predictions.argmax(axis=1) == target)], axis=1)
    centered = (target - np.average(target, weights=weight)) / np.sqrt(scale)
    return np.stack([weight, weight * losses, weight * centered, weight * centered**2], axis=1)


def _loss_and_score(task: Task, sums: NDArray[np.float64]) -> NDArray[np.float64]:
    weight, loss = sums[:, 0], sums[:, 1] / sums[:, 0]
    if task.kind != "regression":
        return np.stack([loss, sums[:, 2] / weight], axis=1)
    spread = sums[:, 3] / weight - (sums[:, 2] / weight) ** 2
    is_spread = spread > 1e-12
    # A constant target is predicted perfectly or not at all; R² has no better meaning there.
    score = np.where(is_spread, 1 - loss / np.where(is_spread, spread, 1.0), (loss == 0).astype(float))
    return np.stack([loss, score], axis=1)
