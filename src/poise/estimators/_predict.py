"""Predictions as a table."""

from __future__ import annotations

from typing import Any

import polars as pl

from poise.data import as_table
from poise.estimators._classifier import PoiseClassifier
from poise.estimators._regressor import PoiseRegressor


def predict_table(model: PoiseClassifier | PoiseRegressor, data: Any) -> pl.DataFrame:
    """Predictions for every row of a table whose columns are found by name, in whatever order they come.

    Args:
        model: A fitted estimator, for example from `load`.
        data: A frame; further columns are ignored.

    Returns:
        A column "prediction" and, for classes, a column "probability of ..." for each class.

    Raises:
        DataError: If a column is missing or holds what it did not hold in training.

    Example:
        >>> import polars
        >>> from poise import PoiseClassifier, predict_table
        >>> table = polars.DataFrame({"x": list(range(40))})
        >>> model = PoiseClassifier(recipe="bare", random_state=0).fit(table, ["low"] * 20 + ["high"] * 20)
        >>> predict_table(model, table).columns
        ['prediction', 'probability of high', 'probability of low']
    """
    predictions = model.predictor_.predict(as_table(data, name="data")).numpy()
    if isinstance(model, PoiseRegressor):
        return pl.DataFrame({"prediction": predictions})
    labels = model.classes_[predictions.argmax(axis=1)].tolist()
    columns = [pl.Series("prediction", labels, strict=False)]
    for index, label in enumerate(model.classes_.tolist()):
        columns.append(pl.Series(f"probability of {label}", predictions[:, index]))
    return pl.DataFrame(columns)
