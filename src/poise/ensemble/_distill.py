"""One network that is taught by many."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from poise._checks import Interval, check_real
from poise._errors import DataError
from poise.ensemble._held_out import row_losses
from poise.ensemble._job import Job, OnEpoch, TrainedMember, check_job, members_of
from poise.ensemble._members import Predicts
from poise.fleet import Engine
from poise.recipe import Recipe
from poise.train import Dataset, Predictor, Rows, Task

_TINY = 1e-3


@dataclass(frozen=True, eq=False)
class Distilled:
    """A network that was taught by an ensemble.

    Args:
        predictor: The student.
        member: Its plan and state.
        teacher_loss: Weighted mean loss of the teacher over the validation rows, against the true targets: log loss in
            nats, or squared error in units of the target's variance.
        student_loss: The same of the student.
        disagreement: Over the validation rows: mean Kullback-Leibler divergence of the student from the teacher in
            nats, or mean squared difference in units of the target's variance.
        seconds: Of the teaching, without the teacher's own training.
    """

    predictor: Predictor
    member: TrainedMember
    teacher_loss: float
    student_loss: float
    disagreement: float
    seconds: float

    @property
    def num_parameters(self) -> int:
        """Weights of the student."""
        return self.member.state.tensors["served"].numel()


def distill(
    teacher: Predicts | NDArray[np.float64],
    data: Dataset,
    task: Task,
    recipe: Recipe,
    *,
    alpha: float = 0.0,
    seed: int = 0,
    val_fraction: float = 0.2,
    folder: Path | None = None,
    engines: Sequence[Engine] | None = None,
    on_epoch: OnEpoch | None = None,
) -> Distilled:
    """Train one network on what an ensemble says: min Σ_i w_i Σ_c q_ic ℓ(F(x_i), c), q = (1 - alpha) p + alpha · 1_y.

    p_ic are the teacher's probabilities and y_i the true class. A row is given once for each class with weight
    w_i q_ic, which is the same expected gradient; a q below 0.001 counts as 0, and the others of the row are scaled up.
    The batch grows with the rows, so that an epoch has as many steps as on the rows themselves. A number is learnt from
    (1 - alpha) · teacher's value + alpha · true value. Validation rows are taught rows of the same kind.

    Args:
        teacher: An ensemble or network; or its predictions for all rows, for example out-of-fold ones, which are less
            sure of themselves than those for rows the teacher was trained on.
        data: The table.
        task: What to predict.
        recipe: Of the student.
        alpha: Share of the true targets, in [0, 1].
        seed: Names all random numbers.
        val_fraction: Share of the rows for validation, in (0, 1).
        folder: For checkpoints, or None.
        engines: Who may train, as in `Fleet`.
        on_epoch: Called after every epoch.

    Shape:
        teacher as an array: (N, number of classes) probabilities, or (N,) values.

    Raises:
        ConfigError: If `alpha` or `val_fraction` is out of range.
        DataError: If predictions do not fit the data, or are no probabilities.
        TrainingError: If the student did not stay finite.

    Example:
        >>> import polars as pl
        >>> from poise import Budget, DeepEnsemble, Network, Recipe, distill, infer_schema
        >>> from poise.train import Dataset, Regression
        >>> table = pl.DataFrame({"x": np.linspace(-1, 1, 60)})
        >>> data = Dataset(table, infer_schema(table), table["x"].to_numpy() ** 2, np.ones(60))
        >>> recipe = Recipe(budget=Budget(20, 16), network=Network(width=8, depth=1))
        >>> ensemble = DeepEnsemble(num_members=3).train(data, Regression(), recipe)
        >>> student = distill(ensemble.predictor, data, Regression(), recipe)
        >>> 3 * student.num_parameters == ensemble.num_parameters
        True

    Reference: Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015.
    """
    started = time.perf_counter()
    check_real("alpha", alpha, Interval(0, 1))
    job = Job(data, task, recipe, seed, val_fraction, folder, engines, on_epoch)
    check_job(job)
    said = teacher if isinstance(teacher, np.ndarray) else teacher.predict(data.table).numpy()
    taught = np.asarray(said, dtype=np.float64)
    _check_predictions(job, taught)
    train_rows, val_rows = job.split(job.rows, job.key.stream("split"))
    lesson = _values(job, taught, alpha) if task.kind == "regression" else _classes(job, taught, alpha)
    plan = lesson.job.plan("student", lesson.copies_of(train_rows), lesson.copies_of(val_rows), seed)
    plan = plan.with_max_epochs(recipe.budget.epochs_for(len(train_rows)))
    member = members_of([plan], lesson.job.train([plan]))[0][0]
    said = member.predictor.predict(data.table[val_rows]).numpy()
    return Distilled(
        member.predictor,
        member,
        teacher_loss=_mean_loss(job, taught[val_rows], val_rows),
        student_loss=_mean_loss(job, said, val_rows),
        disagreement=_disagreement(job, taught[val_rows], said, val_rows),
        seconds=time.perf_counter() - started,
    )


@dataclass(frozen=True, eq=False)
class _Lesson:
    """What the student sees.

    Args:
        job: With the taught rows in place of the true ones.
        origin: Row of the table that each of them is a copy of.
    """

    job: Job
    origin: Rows

    def copies_of(self, rows: Rows) -> Rows:
        """The taught rows that are made of `rows`."""
        return np.flatnonzero(np.isin(self.origin, rows))


def _values(job: Job, taught: NDArray[np.float64], alpha: float) -> _Lesson:
    target = (1 - alpha) * taught + alpha * job.data.target
    data = replace(job.data, target=np.where(job.data.weight > 0, target, 0.0))
    return _Lesson(replace(job, data=data), np.arange(data.table.height))


def _classes(job: Job, taught: NDArray[np.float64], alpha: float) -> _Lesson:
    shares = np.zeros_like(taught)
    rows = job.rows
    true = np.eye(taught.shape[1])[job.data.target[rows].astype(np.int64)]
    shares[rows] = (1 - alpha) * taught[rows] + alpha * true
    # Where there are so many classes that all are below it, the largest stays.
    shares[(shares < _TINY) & (shares < shares.max(axis=1, keepdims=True))] = 0.0
    origin, classes = np.nonzero(shares)
    weight = (shares / np.maximum(shares.sum(axis=1, keepdims=True), np.finfo(float).tiny))[
        origin, classes
    ] * job.data.weight[origin]
    data = Dataset(job.data.table[origin], job.data.schema, classes.astype(np.float64), weight)
    budget = job.recipe.budget
    batch_size = max(1, round(budget.batch_size * len(origin) / len(rows)))
    recipe = replace(job.recipe, budget=replace(budget, batch_size=batch_size))
    return _Lesson(replace(job, data=data, recipe=recipe), origin)


def _check_predictions(job: Job, taught: NDArray[np.float64]) -> None:
    num_rows, num_classes = job.data.table.height, max(2, job.task.num_outputs)
    shape = (num_rows,) if job.task.kind == "regression" else (num_rows, num_classes)
    if taught.shape != shape:
        raise DataError(f"The teacher's predictions must have the shape {shape}, but have {taught.shape}.")
    seen = taught[job.rows]
    is_wrong = ~np.isfinite(seen.reshape(len(seen), -1)).all(axis=1)
    if job.task.kind != "regression":
        is_wrong |= (seen < 0).any(axis=1) | (np.abs(seen.sum(axis=1) - 1) > 1e-6)
    if is_wrong.any():
        kind = "finite" if job.task.kind == "regression" else "probabilities that sum to 1"
        row = int(job.rows[np.argmax(is_wrong)])
        raise DataError(
            f"The teacher's predictions must be {kind}, but are {taught[row].tolist()}.",
            where=f"row {row + 1}",
            repair="Give a teacher that predicts every row, or set the weight of the others to zero.",
        )


def _mean_loss(job: Job, predictions: NDArray[np.float64], rows: Rows) -> float:
    losses = row_losses(job.task, predictions, job.data.target[rows], job.target_variance)
    return float(np.average(losses, weights=job.data.weight[rows]))


def _disagreement(job: Job, taught: NDArray[np.float64], said: NDArray[np.float64], rows: Rows) -> float:
    if job.task.kind == "regression":
        apart = (taught - said) ** 2 / job.target_variance
    else:
        floor = np.finfo(np.float64).tiny
        apart = (taught * (np.log(np.maximum(taught, floor)) - np.log(np.maximum(said, floor)))).sum(axis=1)
    return float(np.average(apart, weights=job.data.weight[rows]))
