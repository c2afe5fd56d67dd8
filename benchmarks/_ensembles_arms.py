"""What is compared in `benchmarks.ensembles`: one network, its dropout, and ensembles, at the same number of epochs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from benchmarks.datasets import load
from poise import AdamW, Average, Budget, Cosine, DeepEnsemble, Network, Recipe, SnapshotEnsemble, ece, predict_mc
from poise._random import Key
from poise.data import infer_schema, split_rows
from poise.ensemble._held_out import row_losses
from poise.ensemble._job import Job, members_of
from poise.fleet import default_engines
from poise.methods import Dropout, EarlyStopping, WeightDecay
from poise.train import Binary, Dataset, Multiclass, Regression, Task

MASKS, P = 50, 0.3
NETWORK = Network(width=256, depth=2, numeric="quantile", num_bins=16)


@dataclass(frozen=True, eq=False)
class Problem:
    """A table with rows to train on and rows to judge by."""

    name: str
    task: Task
    train: Dataset
    test: Dataset

    @property
    def scale(self) -> float:
        """Variance of a numeric target over the training rows."""
        return float(self.train.target.var()) if self.task.kind == "regression" else 1.0

    def loss(self, predictions: np.ndarray) -> float:
        """Mean over the test rows."""
        return float(row_losses(self.task, predictions, self.test.target, self.scale).mean())


def problem(name: str, seed: int, *, num_train: int | None = None, test: float = 0.4) -> Problem:
    """The table `name`, split at random.

    Args:
        name: One of `benchmarks.datasets.SETS`.
        seed: Names the split.
        num_train: Rows to train on; None for all that are no test rows.
        test: Share of the test rows; with `num_train` all other rows are.
    """
    table, target, kind = load(name)
    features, column = table.drop(target), table[target]
    if kind == "regression":
        task, values = Regression(), column.to_numpy().astype(float)
    else:
        labels = sorted(column.unique().to_list(), key=str)
        values = np.array([labels.index(one) for one in column.to_list()], dtype=float)
        task = Binary() if len(labels) == 2 else Multiclass(len(labels))
    classes = None if kind == "regression" else values.astype(np.int64)
    share = test if num_train is None else 1 - num_train / len(values)
    split = split_rows(len(values), key=Key(seed).stream("test"), test=share, val=0.0, classes=classes)
    schema = infer_schema(features)

    def part(rows: np.ndarray) -> Dataset:
        return Dataset(features[rows], schema, values[rows], np.ones(len(rows)))

    return Problem(name, task, part(split.train), part(split.test))


def recipe(epochs: int, *, p: float = 0.0) -> Recipe:
    """Trained to the end of its epochs; the best of them predicts."""
    methods = (WeightDecay(weight_decay=0.02), EarlyStopping(patience=epochs))
    dropout = (Dropout(p=p),) if p else ()
    return Recipe((*dropout, *methods), AdamW(lr=Cosine(2e-3)), Budget(epochs, 128), NETWORK)


@dataclass(frozen=True)
class Row:
    """One arm on one split. Seconds are of the processor, all threads together.

    Args:
        table: Name of the table.
        arm: What predicts.
        seed: Of split and training.
        loss: Over the test rows: nats, or squared error over the target's variance.
        ece: Expected calibration error; None for regression.
        train_seconds: Training, encoding included.
        predict_seconds: Predicting all test rows.
        cost: Epochs in all, over those of one network.
    """

    table: str
    arm: str
    seed: int
    loss: float
    ece: float | None
    train_seconds: float
    predict_seconds: float
    cost: int


def compare(one: Problem, seed: int, epochs: int) -> list[Row]:
    """All arms on one split; each gets the same number of epochs of the same network in all, but for the last two."""
    rows = []
    plain, dropped = recipe(epochs), recipe(epochs, p=P)

    def record(
        arm: str, train: Callable[[], object], *predicts: tuple[str, Callable[[object], np.ndarray]], cost: int = 1
    ) -> None:
        trained, seconds = _timed(train)
        for suffix, predict in predicts:
            said, predicting = _timed(lambda trained=trained, predict=predict: predict(trained))
            error = ece(said, one.test.target.astype(np.int64)) if one.task.kind != "regression" else None
            rows.append(Row(one.name, arm + suffix, seed, one.loss(said), error, seconds, predicting, cost))

    def predict(model: object) -> np.ndarray:
        return model.predict(one.test.table).numpy()

    def ensemble(size: int, of: Recipe, cost: int = 1) -> Callable[[], object]:
        short = replace(of, budget=replace(of.budget, max_epochs=max(1, cost * epochs // size)))
        return lambda: _trained(DeepEnsemble(num_members=size), one, short, seed)

    record("one network", lambda: _single(one, plain, seed), ("", predict))
    record(
        f"dropout p = {P}", lambda: _single(one, dropped, seed),
        (", weights scaled", predict), (f", {MASKS} masks", lambda model: _masked(model, one, seed)),
    )  # fmt: skip
    record("5 members", ensemble(5, plain), ("", predict))
    record("20 members", ensemble(20, plain), ("", predict))
    record("5 members with dropout", ensemble(5, dropped), ("", predict))
    record("5 snapshots", lambda: _trained(SnapshotEnsemble(5), one, plain, seed), ("", predict))
    record("5 shared members", lambda: _single(one, _shared(plain, 5), seed), ("", predict))
    record("5 members, 5 times the cost", ensemble(5, plain, 5), ("", predict), cost=5)
    record(
        "5 shared members, 5 times the cost", lambda: _single(one, _shared(plain, 5, 5), seed), ("", predict), cost=5
    )  # fmt: skip
    return rows


def _shared(of: Recipe, size: int, cost: int = 1) -> Recipe:
    """Members that share all weights but the scales of their inputs and their heads; a row passes once for each."""
    budget = replace(of.budget, max_epochs=max(1, cost * of.budget.max_epochs // size))
    return replace(of, budget=budget, network=replace(of.network, num_members=size))


def _timed(work: Callable[[], object]) -> tuple[object, float]:
    started = time.process_time()
    found = work()
    return found, time.process_time() - started


def _trained(strategy: object, one: Problem, of: Recipe, seed: int) -> Average:
    return strategy.train(one.train, one.task, of, seed=seed, engines=default_engines(1)).predictor


def _single(one: Problem, of: Recipe, seed: int) -> object:
    """One network on the rows that the members of an ensemble get."""
    job = Job(one.train, one.task, of, seed, engines=default_engines(1))
    plan = job.plan("alone", *job.split(job.rows, job.key.stream("split")), job.key.stream("member", 0).seed)
    return members_of([plan], job.train([plan]))[0][0].predictor


def _masked(model: object, one: Problem, seed: int) -> np.ndarray:
    inputs = model.encoder.transform(one.test.table, dtype=torch.float64)
    is_number = one.task.kind == "regression"
    kind = "regression" if is_number else "classification"
    mean = predict_mc(model.network, (inputs,), samples=MASKS, seed=seed, kind=kind).mean
    if is_number:
        return mean.squeeze(-1).numpy() * model.state.target_scale + model.state.target_mean
    return (torch.cat((1 - mean, mean), dim=1) if one.task.kind == "binary" else mean).numpy()
