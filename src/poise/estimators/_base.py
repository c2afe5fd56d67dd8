"""What classifier and regressor share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import narwhals as nw
import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, column_or_1d, validate_data

from poise._checks import Interval, check_choice, check_real, check_type
from poise._errors import ConfigError, DataError
from poise.data import Schema, as_table, infer_schema
from poise.ensemble import EnsembleStrategy, Predicts, TrainedEnsemble
from poise.estimators._bundle import save_bundle
from poise.estimators._candidates import Candidates, Trained, TrainingOptions, train_candidates
from poise.estimators._search import search_candidates
from poise.fleet import Engine
from poise.recipe import Recipe, known, validate_recipe
from poise.train import Dataset, Epoch, Task
from poise.tuning import QUALITIES, Quality, TableSearch, feature_schema, merge_equal_rows, with_numbers

_MIN_ROWS = 2


class PoiseEstimator(BaseEstimator):
    """Searches for recipes or trains given ones, lets validation choose, and predicts with what it chose.

    Args:
        recipe: A Recipe, the name of a known one, or "auto" to search for the recipes that suit the table and average
            the networks that together predict best.
        quality: How much a search tries: "fast", "default" or "best".
        ensemble: How a given recipe is trained, such as `Bagging(20)`; None for a single network.
        val_fraction: Share of the rows for early stopping and choice where there are no folds, in (0, 1).
        time_limit: Seconds for the whole fit, > 0, or None.
        random_state: Seed, as scikit-learn takes it.
    """

    def __init__(
        self,
        *,
        recipe: Recipe | str = "auto",
        quality: Quality = "default",
        ensemble: EnsembleStrategy | None = None,
        val_fraction: float = 0.2,
        time_limit: float | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.recipe = recipe
        self.quality = quality
        self.ensemble = ensemble
        self.val_fraction = val_fraction
        self.time_limit = time_limit
        self.random_state = random_state

    @abstractmethod
    def _encode_target(self, y: NDArray[Any]) -> tuple[Task, NDArray[np.float64]]:
        """The task, and y as class codes or values."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on rows X with targets y.

        Args:
            X: Array or frame (N, D); gaps allowed; frames may hold categories and dates.
            y: (N,) labels or values.
            sample_weight: (N,), ≥ 0; a row with weight 2 counts as the row twice.

        Raises:
            ConfigError: If a setting is out of its range.
            DataError: If the data cannot be learnt from.
        """
        return self._fit(X, y, sample_weight)

    def _fit(self, X: Any, y: Any, sample_weight: Any = None, *, engines: Sequence[Engine] | None = None) -> Self:
        recipes = self._recipes()
        check_choice("quality", self.quality, QUALITIES)
        options = TrainingOptions(
            self._seed(), self._checked_fraction(), self._checked_time(), engines=engines, quality=self.quality
        )
        table, schema, y = self._read_training(X, y)
        if table.height < _MIN_ROWS:
            raise DataError(f"Two rows are the least to learn from, but got n_samples = {table.height}.")
        task, target = self._encode_target(y)
        data = Dataset(table, schema, target, self._checked_weight(sample_weight, table.height))
        if self.ensemble is not None:
            return self._fit_ensemble(data, task, recipes, options)
        if recipes is None:
            return self._adopt(search_candidates(data, task, options))
        return self._adopt(train_candidates(data, task, recipes, options))

    def _fit_ensemble(
        self, data: Dataset, task: Task, recipes: Mapping[str, Recipe] | None, options: TrainingOptions
    ) -> Self:
        check_type("ensemble", self.ensemble, EnsembleStrategy)
        if self.ensemble is None or recipes is None:
            raise ConfigError(
                "`ensemble` says how a given recipe is trained, but recipe='auto' searches and makes its own.",
                where="`recipe`",
                repair="Give `recipe`, or leave `ensemble` out.",
            )
        recipe = next(iter(recipes.values()))
        self.ensemble_: TrainedEnsemble = self.ensemble.train(
            merge_equal_rows(with_numbers(data)),  # in this order, so that a message counts rows as they came
            task,
            recipe,
            seed=options.seed,
            val_fraction=options.val_fraction,
            engines=options.engines,
        )
        members = self.ensemble_.members
        self._compare(tuple(Trained(one.plan, one.state, one.predictor) for one in members), None)
        self._serve(recipe, self.ensemble_.predictor, tuple(members[0].state.history))
        self.chosen_ = type(self.ensemble).__name__
        return self

    def _adopt(self, candidates: Candidates) -> Self:
        """Take over what a training found."""
        self._compare(candidates.trained, candidates.search)
        self._serve(candidates.chosen.plan.recipe, candidates.served, candidates.chosen.history)
        self.chosen_ = candidates.name
        return self

    def _compare(self, trained: tuple[Trained, ...], search: TableSearch | None) -> None:
        self.candidates_ = trained
        self.search_ = search

    def _serve(self, recipe: Recipe, predictor: Predicts, history: tuple[Epoch, ...]) -> None:
        """Predict with this network or ensemble from now on."""
        self.recipe_ = recipe
        self.predictor_ = predictor
        self.history_ = history
        self.n_iter_ = len(history)

    def _predictions(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self, "predictor_")
        return self.predictor_.predict(self._read_rows(X)).numpy()

    # Settings

    def _recipes(self) -> Mapping[str, Recipe] | None:
        """The recipes to train; None for a search."""
        if isinstance(self.recipe, Recipe):
            validate_recipe(self.recipe)
            return {"custom": self.recipe}
        if not isinstance(self.recipe, str):
            raise ConfigError(f"`recipe` must be a Recipe or a name, but got recipe={self.recipe!r}.")
        return None if self.recipe == "auto" else {self.recipe: known(self.recipe)}

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _checked_fraction(self) -> float:
        check_real("val_fraction", self.val_fraction, Interval(0, 1, low_open=True, high_open=True))
        return self.val_fraction

    def _checked_time(self) -> float | None:
        if self.time_limit is not None:
            check_real("time_limit", self.time_limit, Interval(0, low_open=True))
        return self.time_limit

    def _checked_target(self, y: Any) -> NDArray[Any]:
        if y is None:
            raise DataError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        column: NDArray[Any] = column_or_1d(y, warn=True)
        return column

    @staticmethod
    def _checked_weight(sample_weight: Any, num_rows: int) -> NDArray[np.float64]:
        rows = np.empty((num_rows, 0))
        weight: NDArray[np.float64] = _check_sample_weight(
            sample_weight, rows, dtype=np.float64, ensure_non_negative=True
        )
        return weight

    # Input

    def _read_training(self, X: Any, y: Any) -> tuple[pl.DataFrame, Schema, NDArray[Any]]:
        if _is_table(X):
            validate_data(self, X, skip_check_array=True)
            table, y = as_table(X), self._checked_target(y)
            if table.width and table.height != len(y):
                raise DataError(f"X has {table.height} rows, but y has {len(y)}.", repair="Give one target a row.")
            return table, feature_schema(table), y
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_all_finite="allow-nan", multi_output=False)
        table = as_table(X)
        return table, infer_schema(table, all_numbers=True), y

    def _read_rows(self, X: Any) -> pl.DataFrame:
        if _is_table(X):
            validate_data(self, X, skip_check_array=True, reset=False)
            return as_table(X)
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        table, columns = as_table(X), self.predictor_.encoder.schema.columns
        return table.rename({old: new.name for old, new in zip(table.columns, columns, strict=True)})

    def save(self, path: str | Path) -> None:
        """Save the fitted network as a bundle: a folder of safetensors and JSON with a SHA-256 manifest.

        Args:
            path: Folder, made if missing; must be empty or hold an older bundle.
        """
        check_is_fitted(self, "predictor_")
        save_bundle(self, Path(path))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def _is_table(X: Any) -> bool:
    """Whether columns have kinds of their own: a frame, or an array that holds text."""
    if isinstance(X, np.ndarray):
        return X.dtype.kind == "U" or (X.dtype.kind == "O" and any(isinstance(cell, str) for cell in X.flat))
    return nw.dependencies.is_into_dataframe(X)
