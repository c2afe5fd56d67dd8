"""The regressor."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin

from poise.estimators._base import PoiseEstimator
from poise.train import Regression, Task


class PoiseRegressor(RegressorMixin, PoiseEstimator):
    """A neural network for a number in a table, regularized by the recipe that validates best.

    Minimizes the weighted mean of (f(x_i) - z_i)² over the training rows, plus what the recipe adds, where z is the
    target scaled to mean 0 and variance 1; predictions are scaled back.

    Args:
        recipe: A Recipe, the name of a known one, or "auto" to search for the recipes that suit the table and average
            the networks that together predict best.
        quality: How much a search tries: "fast", "default" or "best".
        ensemble: How a given recipe is trained, such as `Bagging(20)`; None for a single network.
        val_fraction: Share of the rows for early stopping and choice where there are no folds, in (0, 1).
        time_limit: Seconds for the whole fit, > 0, or None.
        random_state: Seed, as scikit-learn takes it.

    Attributes:
        chosen_: Name of the chosen recipe, "ensemble", or the kind of ensemble that was asked for.
        recipe_: The chosen recipe; of an ensemble that of its best network.
        history_: One record an epoch of the chosen or best network.
        candidates_: The networks that were compared.
        search_: What a search found: trials, members and what their average is worth on rows that did not choose.
        ensemble_: What training an ensemble brought: members, predictions for rows that they have not seen.
        feature_names_in_: Column names, if X was a frame.
        n_features_in_: Number of columns.

    Shape:
        X: (N, D). y: (N,). predict: (N,).

    Raises:
        ConfigError: At fit, if a setting is out of its range.
        DataError: If the data cannot be learnt from, or differ from the training data at predict.

    Example:
        >>> from sklearn.datasets import load_diabetes
        >>> from poise import PoiseRegressor
        >>> X, y = load_diabetes(return_X_y=True)
        >>> model = PoiseRegressor(recipe="cocktail", random_state=0).fit(X[::2], y[::2])
        >>> bool(model.score(X[1::2], y[1::2]) > 0.3)
        True
    """

    def _encode_target(self, y: NDArray[Any]) -> tuple[Task, NDArray[np.float64]]:
        return Regression(), np.asarray(y, dtype=np.float64)

    def predict(self, X: Any) -> NDArray[np.float64]:
        """The predicted value of each row (N,)."""
        return self._predictions(X)
