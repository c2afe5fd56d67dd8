"""Networks that are added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from poise._errors import ConfigError
from poise.data import Encoder, check_columns
from poise.ensemble._members import Members
from poise.train import Predictor, Regression, Task, row_chunks


@dataclass(frozen=True, eq=False)
class Stage:
    """One round of boosting.

    Args:
        networks: One for each output.
        step: What their outputs are multiplied by: the learning rate times the length found by line search.
        train_loss: Of the sum up to this round, over the training rows.
        val_loss: The same over the validation rows.
    """

    networks: tuple[Predictor, ...]
    step: float
    train_loss: float
    val_loss: float


class Boosted:
    """A sum of networks: F(x) = b + Σ_r s_r f_r(x), with predictions that the task makes of the outputs F.

    b are the outputs of the best constant, f_r(x) what the networks of round r say, one for each output, and s_r the
    step of the round. Classes get the softmax (or sigmoid) of F, a number is mean + scale · F. It predicts as one
    network does and can stand wherever one can.

    Args:
        task: What is predicted.
        base: b, one number for each output of the task.
        stages: The rounds, at least one.
        target_mean: Regression: what is added to the prediction.
        target_scale: Regression: what F is multiplied by.

    Shape:
        `predict`: (N, number of classes), or (N,). `outputs`: (N, num_outputs).

    Raises:
        ConfigError: If there is no round, or the numbers of outputs do not fit the task.

    Example:
        >>> import numpy as np, polars as pl
        >>> from poise import Boosting, Budget, Recipe, infer_schema
        >>> from poise.train import Dataset, Regression
        >>> table = pl.DataFrame({"x": np.linspace(-1, 1, 60)})
        >>> data = Dataset(table, infer_schema(table), table["x"].to_numpy() ** 2, np.ones(60))
        >>> boosted = Boosting(num_rounds=4).train(data, Regression(), Recipe(budget=Budget(batch_size=16))).predictor
        >>> type(boosted).__name__, boosted.predict(table).shape, boosted.outputs(table).shape
        ('Boosted', torch.Size([60]), torch.Size([60, 1]))

    Reference: Friedman, "Greedy function approximation", Annals of Statistics 29, 2001.
    """

    def __init__(
        self,
        task: Task,
        base: Sequence[float],
        stages: Sequence[Stage],
        *,
        target_mean: float = 0.0,
        target_scale: float = 1.0,
    ) -> None:
        widths = {len(base), *(len(stage.networks) for stage in stages)}
        if not stages or widths != {task.num_outputs}:
            raise ConfigError(
                f"`stages` must hold a round or more with {task.num_outputs} network(s) each, and `base` as many "
                f"numbers, but there are {len(stages)} rounds and widths {sorted(widths)}."
            )
        self.task, self.base, self.stages = task, tuple(base), tuple(stages)
        self.target_mean, self.target_scale = target_mean, target_scale
        self._members = Members([network for stage in stages for network in stage.networks])

    @property
    def encoder(self) -> Encoder:
        """Of the first network; its schema is that of all."""
        return self.stages[0].networks[0].encoder

    def outputs(self, table: pl.DataFrame) -> Tensor:
        """F (N, num_outputs), in float64.

        Args:
            table: Holds the features, found by name.

        Raises:
            DataError: If a column is missing or holds what it did not hold in training.
        """
        check_columns(self.encoder.schema, table)
        return torch.cat([self._sum(part) for part in row_chunks(table)])

    def predict(self, table: pl.DataFrame) -> Tensor:
        """Class probabilities (N, number of classes), or values (N,) in the target's own units."""
        predictions = self.task.predict(self.outputs(table))
        is_scaled = isinstance(self.task, Regression)
        return predictions * self.target_scale + self.target_mean if is_scaled else predictions

    def _sum(self, rows: pl.DataFrame) -> Tensor:
        num_outputs = self.task.num_outputs
        total = torch.tensor(self.base, dtype=torch.float64).repeat(rows.height, 1)
        for index, values in self._members.predictions(rows):
            total[:, index % num_outputs] += self.stages[index // num_outputs].step * values
        return total
