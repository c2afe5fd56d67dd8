"""Gradient boosting of small networks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import torch
from torch import Tensor

from poise._checks import Interval, check_integer, check_real
from poise._errors import TrainingError
from poise.data import Inputs
from poise.ensemble._additive import AdditiveLoss
from poise.ensemble._boosted import Boosted, Stage
from poise.ensemble._job import Job, TrainedMember, member_of
from poise.ensemble._members import encoder_digest
from poise.ensemble._strategy import EnsembleStrategy, TrainedEnsemble
from poise.fleet import Fleet
from poise.recipe import Recipe
from poise.train import Dataset, Plan, Predictor, Regression, Rows, State, row_chunks

_LEAST_STEP = 1e-6


@dataclass(frozen=True)
class Boosting(EnsembleStrategy):
    """Small networks, each fitted to what the sum of those before left over: F_r = F_{r-1} + learning_rate · s_r · f_r.

    F_0 is the best constant. f_r are networks, one for each output, fitted by squared error to the residuals
    t - m(F_{r-1}): the target (0 or 1 for each class, or the scaled number) minus what is predicted so far. s_r in
    [0, 10] minimizes the loss of F_{r-1} + s · f_r over the training rows; a round whose s_r is 0, or whose weights did
    not stay finite, adds nothing. Rounds end when `patience` of them in a row did not lower the validation loss, and
    the sum up to the best one predicts. All networks of a round train side by side.

    Args:
        num_rounds: Upper bound of rounds, in [1, 10000].
        learning_rate: How much of each step is taken, in (0, 1].
        patience: Rounds without a lower validation loss before the end, ≥ 1.
        max_epochs: Of each network, ≥ 1, in place of the recipe's.
        width: Features of a hidden layer, ≥ 1, in place of the recipe's.
        depth: Hidden layers, ≥ 1, in place of the recipe's.

    Example:
        >>> import numpy as np, polars as pl
        >>> from poise import Boosting, Budget, Recipe, infer_schema
        >>> from poise.train import Dataset, Regression
        >>> table = pl.DataFrame({"x": np.linspace(-1, 1, 60)})
        >>> data = Dataset(table, infer_schema(table), table["x"].to_numpy() ** 2, np.ones(60))
        >>> ensemble = Boosting(num_rounds=6).train(data, Regression(), Recipe(budget=Budget(batch_size=16)))
        >>> losses = [stage.train_loss for stage in ensemble.predictor.stages]
        >>> losses == sorted(losses, reverse=True)
        True

    Reference: Friedman, "Greedy function approximation: a gradient boosting machine", Annals of Statistics 29, 2001;
    Badirli et al., "Gradient boosting neural networks: GrowNet", 2020.
    """

    num_rounds: int = 200
    learning_rate: float = 0.1
    patience: int = 20
    max_epochs: int = 5
    width: int = 32
    depth: int = 2

    def __post_init__(self) -> None:
        check_integer("num_rounds", self.num_rounds, Interval(1, 10_000))
        check_real("learning_rate", self.learning_rate, Interval(0, 1, low_open=True))
        for name in ("patience", "max_epochs", "width", "depth"):
            check_integer(name, getattr(self, name), Interval(1))

    def _train(self, job: Job) -> TrainedEnsemble:
        rounds = _Rounds(replace(job, recipe=self._small(job.recipe)), self.learning_rate)
        best_at = 0
        while rounds.tried < self.num_rounds and rounds.tried - best_at < self.patience:
            if rounds.add() and rounds.best == len(rounds.stages):
                best_at = rounds.tried
        if not rounds.stages:
            raise TrainingError(
                f"None of {rounds.tried} rounds of boosting lowered the training loss.",
                repair="Lower the recipe's learning rate, or look for columns that say something of the target.",
            )
        return rounds.ensemble()

    def _small(self, recipe: Recipe) -> Recipe:
        network = replace(recipe.network, width=self.width, depth=self.depth)
        return replace(recipe, network=network, budget=replace(recipe.budget, max_epochs=self.max_epochs))


class _Rounds:
    """The sum so far, on all rows of the job."""

    def __init__(self, job: Job, learning_rate: float) -> None:
        self.job, self.learning_rate = job, learning_rate
        self.stages: list[Stage] = []
        self.members: list[list[TrainedMember]] = []
        self.tried = 0
        self.num_outputs = job.task.num_outputs
        # From here on rows are counted among those of the job.
        self.table = job.data.table[job.rows].select(job.data.schema.feature_names)
        weight = torch.from_numpy(job.data.weight[job.rows])
        parts = job.split(job.rows, job.key.stream("split"))
        self.train_rows, self.val_rows = (np.searchsorted(job.rows, part) for part in parts)
        self.target_mean, self.target_scale = self._scaling(weight.numpy())
        values = (torch.from_numpy(job.data.target[job.rows]) - self.target_mean) / self.target_scale
        self.loss = AdditiveLoss(job.task, job.task.targets(values), weight)
        self.train_loss, self.val_loss = (
            self.loss.take(torch.from_numpy(rows)) for rows in (self.train_rows, self.val_rows)
        )
        self.base = self.train_loss.base()
        self.outputs = self.base.repeat(len(weight), 1)
        self.constant_loss = self.val_loss.value(self.outputs[torch.from_numpy(self.val_rows)])
        copies = pl.concat([self.table] * self.num_outputs)
        nothing = np.zeros(copies.height)
        # The tables of all rounds are like this one, so that it is encoded in the first round only.
        self.copies = Dataset(copies, job.data.schema, nothing, nothing + 1)
        self.encoded: tuple[str, list[Inputs]] | None = None

    def _scaling(self, weight: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> tuple[float, float]:
        if self.job.task.kind != "regression":
            return 0.0, 1.0
        values, weight = self.job.data.target[self.job.rows][self.train_rows], weight[self.train_rows]
        mean = float(np.average(values, weights=weight))
        return mean, float(np.sqrt(np.average((values - mean) ** 2, weights=weight))) or 1.0

    @property
    def best(self) -> int:
        """How many rounds have the lowest validation loss."""
        return int(np.argmin([stage.val_loss for stage in self.stages])) + 1 if self.stages else 0

    def add(self) -> bool:
        """Try another round; False if it did not stay finite or does not lower the training loss."""
        members = self._fitted(self.tried)
        self.tried += 1
        if members is None:
            return False
        direction = torch.stack([self._predictions(one.predictor) for one in members], dim=1)
        train, val = torch.from_numpy(self.train_rows), torch.from_numpy(self.val_rows)
        step = self.learning_rate * self.train_loss.best_step(self.outputs[train], direction[train])
        if step < _LEAST_STEP:
            return False
        self.outputs += step * direction
        losses = self.train_loss.value(self.outputs[train]), self.val_loss.value(self.outputs[val])
        self.stages.append(Stage(tuple(one.predictor for one in members), step, *losses))
        self.members.append(members)
        return True

    def ensemble(self) -> TrainedEnsemble:
        """The sum of the best first rounds."""
        useless = self.tried - len(self.stages)
        notes = (
            [f"{useless} of {self.tried} rounds did not lower the training loss and add nothing."] if useless else []
        )
        stages = self.stages[: self.best]
        if stages[-1].val_loss >= self.constant_loss:
            notes.append("No round has a lower validation loss than the best constant; one is kept.")
        boosted = Boosted(
            self.job.task, self.base.tolist(), stages,
            target_mean=self.target_mean, target_scale=self.target_scale,
        )  # fmt: skip
        members = tuple(one for members in self.members[: self.best] for one in members)
        return TrainedEnsemble(boosted, members, tuple(notes))

    def _fitted(self, number: int) -> list[TrainedMember] | None:
        """One network for each output, fitted to the residuals; None if one did not stay finite."""
        job, residuals = self.job, self.loss.residuals(self.outputs)
        target, weight = residuals.T.reshape(-1).numpy(), self.loss.weight.repeat(self.num_outputs).numpy()
        data = replace(self.copies, target=target, weight=weight, like=self.copies)
        plans = [self._plan(number, output) for output in range(self.num_outputs)]
        folder = None if job.folder is None else job.folder / f"round-{number}"
        states = Fleet(plans, data, folder=folder, engines=job.engines).run(on_epoch=self._on_epoch)
        if any(not state.best_epoch for state in states):
            return None
        return [member_of(plan, state) for plan, state in zip(plans, states, strict=True)]

    def _plan(self, number: int, output: int) -> Plan:
        """The training of one network, on the copy of the table that has the residuals of its output."""
        name = f"round-{number}" if self.num_outputs == 1 else f"round-{number}-class-{output}"
        rows: list[Rows] = [part + output * self.table.height for part in (self.train_rows, self.val_rows)]
        seed = self.job.key.stream("member", number, output).seed
        return Plan(name, self.job.recipe, Regression(), rows[0], rows[1], seed)

    def _on_epoch(self, index: int, plan: Plan, state: State) -> None:
        if self.job.on_epoch is not None:
            self.job.on_epoch(self.tried * self.num_outputs + index, plan, state)

    def _predictions(self, predictor: Predictor) -> Tensor:
        """(N,) values of one network; all rounds have equal encoders, so the table is encoded once."""
        name = encoder_digest(predictor.encoder)
        if self.encoded is None or self.encoded[0] != name:
            inputs = [predictor.encoder.transform(part, dtype=torch.float64) for part in row_chunks(self.table)]
            self.encoded = name, inputs
        return torch.cat([predictor.predict_encoded(part) for part in self.encoded[1]])
