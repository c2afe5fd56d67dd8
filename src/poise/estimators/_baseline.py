"""scikit-learn's gradient-boosted trees, the bar that every table sets for a network."""

from __future__ import annotations

import time

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from poise.data import Encoder
from poise.train import Dataset, Task

NAME = "HistGradientBoosting"
_MAX_CATEGORIES = 255  # its own limit; a column with more is given as ordered numbers


class Baseline:
    """HistGradientBoosting with scikit-learn's defaults, native categories and native gaps.

    It learns from training and validation rows alike, since it needs no validation rows of ours.
    """

    def __init__(self, data: Dataset, task: Task, seed: int) -> None:
        started = time.perf_counter()
        self.task = task
        self.encoder = Encoder.fit(data.table, data.schema, np.arange(data.table.height))
        is_category = self._is_category()
        kind = HistGradientBoostingRegressor if task.kind == "regression" else HistGradientBoostingClassifier
        # Its default, or one bin a row: no more could be filled, and all are looked through for every column.
        max_bins = min(_MAX_CATEGORIES, max(2, data.table.height))
        model = kind(categorical_features=is_category, max_bins=max_bins, random_state=seed % 2**32)
        self.model = model.fit(self._columns(data.table), data.target, sample_weight=data.weight)
        self.seconds = time.perf_counter() - started

    def predict(self, table: pl.DataFrame) -> NDArray[np.float64]:
        """Class probabilities (N, C), or values (N,)."""
        columns = self._columns(table)
        predict = self.model.predict if self.task.kind == "regression" else self.model.predict_proba
        predictions: NDArray[np.float64] = predict(columns)
        return predictions

    def _columns(self, table: pl.DataFrame) -> NDArray[np.float64]:
        inputs = self.encoder.transform(table)
        return np.hstack([inputs.numeric.double().numpy(), inputs.categorical.double().numpy()])

    def _is_category(self) -> NDArray[np.bool_]:
        sizes = self.encoder.cardinalities
        return np.array([False] * self.encoder.num_numeric + [size <= _MAX_CATEGORIES for size in sizes])
