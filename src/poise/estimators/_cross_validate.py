"""Cross-validation whose folds train side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone, is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils import _safe_indexing, indexable

from poise.estimators._base import PoiseEstimator
from poise.fleet import default_engines, wait_for_all


def cross_validate(
    estimator: PoiseEstimator,
    X: Any,
    y: Any,
    *,
    cv: Any = None,
    groups: Any = None,
    scoring: str | Callable[..., float] | None = None,
    return_estimator: bool = False,
) -> dict[str, Any]:
    """Fit and score a Poise estimator on every fold, a fold for each core at a time.

    It gives what `sklearn.model_selection.cross_validate` gives, bit for bit, without processes and without copies of
    the table.

    Args:
        estimator: A PoiseClassifier or PoiseRegressor; it stays as it is. A fixed `random_state` makes it repeatable.
        X: As for its `fit`.
        y: As for its `fit`.
        cv: Number of folds, a splitter or an iterable of (train, test) rows, as scikit-learn takes it; None for 5.
        groups: (N,), for splitters that keep groups together.
        scoring: Name of a metric or a scorer; None for accuracy or R².
        return_estimator: Whether to return the fitted estimators too.

    Returns:
        "test_score", "fit_time" and "score_time", (folds,) arrays, and "estimator", a list, if wanted.

    Raises:
        ConfigError: If a setting of the estimator is out of its range.
        DataError: If the data cannot be learnt from.

    Example:
        >>> from sklearn.datasets import load_wine
        >>> from poise import PoiseClassifier, cross_validate
        >>> X, y = load_wine(return_X_y=True)
        >>> scores = cross_validate(PoiseClassifier(recipe="cocktail", random_state=0), X, y, cv=3)["test_score"]
        >>> bool(scores.mean() > 0.9)
        True
    """
    X, y, groups = indexable(X, y, groups)
    splits = list(check_cv(cv, y, classifier=is_classifier(estimator)).split(X, y, groups))
    job = _Fold(estimator, X, y, check_scoring(estimator, scoring))
    _prepare_engines()
    with ThreadPoolExecutor(min(torch.get_num_threads(), len(splits))) as pool:
        folds = [pool.submit(job.run, split) for split in splits]
        try:
            wait_for_all(folds)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    fitted, scores, fit_times, score_times = zip(*(fold.result() for fold in folds), strict=True)
    found: dict[str, Any] = {
        "fit_time": np.array(fit_times),
        "score_time": np.array(score_times),
        "test_score": np.array(scores),
    }
    return {**found, "estimator": list(fitted)} if return_estimator else found


def _prepare_engines() -> None:
    """Compile, or load from disk, before the folds do so all at once."""
    for engine in default_engines():
        engine.prepare([])


@dataclass(frozen=True, eq=False)
class _Fold:
    """Fits and scores one fold."""

    estimator: PoiseEstimator
    X: Any
    y: Any
    scorer: Callable[..., float]

    def run(self, split: Iterable[NDArray[np.int64]]) -> tuple[PoiseEstimator, float, float, float]:
        """The fitted estimator, its score, and the seconds of both."""
        train, test = split
        started = time.perf_counter()
        model = clone(self.estimator)
        # The folds share the cores, so each trains one network at a time.
        model._fit(_safe_indexing(self.X, train), _safe_indexing(self.y, train), engines=default_engines(threads=1))
        fitted = time.perf_counter()
        score = float(self.scorer(model, _safe_indexing(self.X, test), _safe_indexing(self.y, test)))
        return model, score, fitted - started, time.perf_counter() - fitted
