"""Predictions of a finished training."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
import torch
from torch import Tensor

from poise.data import Encoder, Inputs, check_columns
from poise.recipe import Recipe
from poise.train._flat import flatten_, running_statistics
from poise.train._network import build_network
from poise.train._state import State
from poise.train._task import Task

_CHUNK = 1 << 14


class Predictor:
    """A trained network in eval mode, computed in float64 so that a row's prediction does not depend on its neighbors.

    Args:
        recipe: Of the training; supplies the network.
        task: What is predicted.
        state: Of the training; "served" weights and statistics are used.
    """

    def __init__(self, recipe: Recipe, task: Task, state: State) -> None:
        self.recipe, self.task, self.state = recipe, task, state
        self.encoder = Encoder.from_state(*state.encoder_state())
        self.network = build_network(recipe, self.encoder, task).network.double()
        for vector, source in (
            (flatten_(list(self.network.parameters()), torch.float64), "served"),
            (flatten_(running_statistics(self.network), torch.float64), "served_statistics"),
        ):
            vector.copy_(state.tensors[source])
        self.network.requires_grad_(False).eval()

    def outputs(self, table: pl.DataFrame) -> Tensor:
        """Raw outputs (N, num_outputs) of the network in float64.

        Raises:
            DataError: If a column is missing or holds what it did not hold in training.
        """
        check_columns(self.encoder.schema, table)
        encoded = (self.encoder.transform(part, dtype=torch.float64) for part in row_chunks(table))
        return torch.cat([self.network(inputs) for inputs in encoded])

    def predict(self, table: pl.DataFrame) -> Tensor:
        """Class probabilities (N, number of classes), or values (N,) in the target's own units."""
        return self._in_units(self.outputs(table))

    def predict_encoded(self, inputs: Inputs) -> Tensor:
        """The predictions for rows that an encoder of equal state has encoded in float64."""
        return self._in_units(self.network(inputs))

    def _in_units(self, outputs: Tensor) -> Tensor:
        predictions = self.task.predict(outputs)
        is_scaled = self.task.kind == "regression"
        return predictions * self.state.target_scale + self.state.target_mean if is_scaled else predictions


def row_chunks(table: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The rows of `table` in parts that are predicted at once; one empty part where there are none."""
    for at in range(0, max(1, table.height), _CHUNK):
        yield table[at : at + _CHUNK]
