"""The classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets

from poise.data import encode_classes
from poise.estimators._base import PoiseEstimator
from poise.train import Binary, Multiclass, Task


class PoiseClassifier(ClassifierMixin, PoiseEstimator):
    """A neural network for classes of a table, regularized by the recipe that validates best.

    Minimizes the mean cross-entropy -Σ_i w_i log p(y_i | x_i) / Σ_i w_i over the training rows, plus what the recipe
    adds, and predicts the class of highest probability.

    Args:
        recipe: A Recipe, the name of a known one, or "auto" to search for the recipes that suit the table and average
            the networks that together predict best.
        quality: How much a search tries: "fast", "default" or "best".
        ensemble: How a given recipe is trained, such as `Bagging(20)`; None for a single network.
        val_fraction: Share of the rows for early stopping and choice where there are no folds, in (0, 1).
        time_limit: Seconds for the whole fit, > 0, or None.
        random_state: Seed, as scikit-learn takes it.

    Attributes:
        classes_: (C,) labels, sorted.
        chosen_: Name of the chosen recipe, "ensemble", or the kind of ensemble that was asked for.
        recipe_: The chosen recipe; of an ensemble that of its best network.
        history_: One record an epoch of the chosen or best network.
        candidates_: The networks that were compared.
        search_: What a search found: trials, members and what their average is worth on rows that did not choose.
        ensemble_: What training an ensemble brought: members, predictions for rows that they have not seen.
        feature_names_in_: Column names, if X was a frame.
        n_features_in_: Number of columns.

    Shape:
        X: (N, D). y: (N,). predict: (N,). predict_proba: (N, C).

    Raises:
        ConfigError: At fit, if a setting is out of its range.
        DataError: If the data cannot be learnt from, or differ from the training data at predict.

    Example:
        >>> from sklearn.datasets import load_wine
        >>> from poise import PoiseClassifier
        >>> X, y = load_wine(return_X_y=True)
        >>> model = PoiseClassifier(recipe="cocktail", random_state=0).fit(X[::2], y[::2])
        >>> bool(model.score(X[1::2], y[1::2]) > 0.9)
        True
    """

    def _encode_target(self, y: NDArray[Any]) -> tuple[Task, NDArray[np.float64]]:
        _, codes = encode_classes(y)
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        num_classes = len(self.classes_)
        task = Binary() if num_classes == 2 else Multiclass(num_classes)
        return task, codes.astype(np.float64)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Class probabilities (N, C), columns in the order of `classes_`."""
        return self._predictions(X)

    def predict(self, X: Any) -> NDArray[Any]:
        """The class of highest probability for each row (N,)."""
        best = self._predictions(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[best]
        return labels
