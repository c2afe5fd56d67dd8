"""Several networks as one prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl
import torch
from torch import Tensor

from poise._checks import Interval, check_real
from poise._errors import ConfigError
from poise.data import Encoder, check_columns
from poise.ensemble._members import Members, Predicts
from poise.train import Task, row_chunks

_TOLERANCE = 1e-6


class Average:
    """The weighted mean of predictions: ŷ(x) = Σ_m w_m ŷ_m(x), with w_m ≥ 0 and Σ_m w_m = 1.

    ŷ_m(x) are member m's class probabilities, or its value in the target's own units. It predicts as one network does
    and can stand wherever one can, also as the member of another average. Members with equal encoders read a table that
    is encoded once; members of weight zero are not run. All is computed in float64 in parts of the rows, so that a
    row's prediction does not depend on its neighbors.

    Args:
        members: M ≥ 1 networks or ensembles for one task and one schema.
        weights: M numbers, in [0, 1], sum 1 up to 1e-6; None for 1 / M each.

    Shape:
        `predict`: (N, number of classes), or (N,). `member_predictions`: the same behind a first axis of M.

    Raises:
        ConfigError: If weights and members do not fit, or members differ in what they predict or in their columns.

    Example:
        >>> import polars as pl
        >>> from sklearn.datasets import load_wine
        >>> from poise import Average, PoiseClassifier
        >>> X, y = load_wine(return_X_y=True)
        >>> fits = [PoiseClassifier(recipe="bare", random_state=seed).fit(X, y) for seed in (0, 1)]
        >>> average = Average([fit.predictor_ for fit in fits])
        >>> table = pl.DataFrame(X, schema=average.encoder.schema.feature_names)
        >>> average.predict(table).shape, average.member_predictions(table).shape
        (torch.Size([178, 3]), torch.Size([2, 178, 3]))

    Reference: Dietterich, "Ensemble methods in machine learning", 2000.
    """

    def __init__(self, members: Sequence[Predicts], weights: Sequence[float] | None = None) -> None:
        self._members = Members(members)
        self.members = self._members.all
        self.weights = _checked(weights, len(self.members))

    @property
    def task(self) -> Task:
        """What is predicted."""
        return self.members[0].task

    @property
    def encoder(self) -> Encoder:
        """Of the first member; its schema is that of all."""
        return self.members[0].encoder

    def predict(self, table: pl.DataFrame) -> Tensor:
        """Class probabilities (N, number of classes), or values (N,) in the target's own units.

        Args:
            table: Holds the features, found by name.

        Raises:
            DataError: If a column is missing or holds what it did not hold in training.
        """
        check_columns(self.encoder.schema, table)
        return torch.cat([self._mean(part) for part in row_chunks(table)])

    def member_predictions(self, table: pl.DataFrame) -> Tensor:
        """The prediction of every member, also of those with weight zero.

        Args:
            table: Holds the features, found by name.

        Returns:
            (M, N, number of classes), or (M, N).

        Raises:
            DataError: If a column is missing or holds what it did not hold in training.
        """
        check_columns(self.encoder.schema, table)
        parts = []
        for part in row_chunks(table):
            made = dict(self._members.predictions(part))
            parts.append(torch.stack([made[index] for index in range(len(self.members))]))
        return torch.cat(parts, dim=1)

    def _mean(self, rows: pl.DataFrame) -> Tensor:
        used = [index for index, weight in enumerate(self.weights) if weight > 0]
        made = self._members.predictions(rows, of=used)
        return torch.stack([self.weights[index] * prediction for index, prediction in made]).sum(dim=0)


def _checked(weights: Sequence[float] | None, num_members: int) -> tuple[float, ...]:
    if weights is None:
        return (1 / num_members,) * num_members
    found = [float(weight) for weight in weights]
    if len(found) != num_members:
        raise ConfigError(f"`weights` must be one number a member, but there are {len(found)} for {num_members}.")
    for index, weight in enumerate(found):
        check_real(f"weights[{index}]", weight, Interval(0, 1 + _TOLERANCE))
    total = math.fsum(found)
    if abs(total - 1) > _TOLERANCE:
        raise ConfigError(f"`weights` must sum to 1, but sum to {total!r}.", repair="Divide them by their sum.")
    return tuple(weight / total for weight in found)
