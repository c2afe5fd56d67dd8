"""One training to be done, and the table it is done on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from poise._errors import ConfigError
from poise._random import Key
from poise.data import Schema
from poise.recipe import Recipe
from poise.train._task import Task

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A table that is ready for training.

    Args:
        table: N rows; the columns of `schema` are read.
        schema: Kinds of the feature columns.
        target: (N,) float64: class codes 0 … C - 1, or values.
        weight: (N,) float64, ≥ 0: how much a row counts.
        like: One with the same table and schema, whose encoded rows are taken instead of encoding them again.
    """

    table: pl.DataFrame
    schema: Schema
    target: NDArray[np.float64]
    weight: NDArray[np.float64]
    like: Dataset | None = None

    def __post_init__(self) -> None:
        if self.like is not None and self.like.table is not self.table:
            raise ConfigError("`like` must be a dataset of the very same table, but its table is another.")


@dataclass(frozen=True, eq=False)
class Plan:
    """One training to be done. It sees its own training rows and nothing else; encoders are fitted on them.

    Args:
        name: For progress and reports.
        recipe: What to do.
        task: What to predict.
        train_rows: Rows to learn from, sorted.
        val_rows: Rows for validation: early stopping and choice.
        seed: Names all random numbers of this training.
        dtype: Of weights and activations.
    """

    name: str
    recipe: Recipe
    task: Task
    train_rows: Rows
    val_rows: Rows
    seed: int = 0
    dtype: torch.dtype = torch.float32

    @property
    def key(self) -> Key:
        """The root of this training's random numbers."""
        return Key(self.seed)

    @property
    def max_epochs(self) -> int:
        """Upper bound of passes over the training rows."""
        return self.recipe.budget.epochs_for(len(self.train_rows))

    def named(self, name: str) -> Plan:
        """The same plan by another name."""
        return replace(self, name=name)

    def with_max_epochs(self, max_epochs: int) -> Plan:
        """The same plan on another budget; its schedules stretch or shrink with it."""
        return replace(self, recipe=replace(self.recipe, budget=replace(self.recipe.budget, max_epochs=max_epochs)))


def batch_bounds(num_rows: int, batch_size: int) -> list[tuple[int, int]]:
    """Start and end of each batch of an epoch; a single leftover row joins the batch before it.

    Example:
        >>> batch_bounds(9, 4), batch_bounds(10, 4)
        ([(0, 4), (4, 9)], [(0, 4), (4, 8), (8, 10)])
    """
    starts = list(range(0, num_rows, batch_size))
    if len(starts) > 1 and num_rows - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], num_rows], strict=True))
