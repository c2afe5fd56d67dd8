"""Reading a bundle. Nothing in it is code: recipes and tasks come from closed registries, and nothing is imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load as unpack_tensors

from poise.estimators._bundle import MODEL, TENSORS, refusing_damage, verified_members
from poise.estimators._classifier import PoiseClassifier
from poise.estimators._regressor import PoiseRegressor
from poise.estimators._served import unpack
from poise.recipe import from_toml
from poise.train import Binary, Epoch, Multiclass, Regression, Task


def load(path: str | Path) -> PoiseClassifier | PoiseRegressor:
    """Read a bundle, or the bundle of a run folder.

    Args:
        path: Folder that `save` or `poise fit` wrote.

    Returns:
        The fitted estimator, ready to predict.

    Raises:
        BundleError: If anything is missing, added, changed by a single bit, or of another format version.

    Example:
        >>> import tempfile
        >>> from sklearn.datasets import load_wine
        >>> from poise import PoiseClassifier, load
        >>> X, y = load_wine(return_X_y=True)
        >>> model = PoiseClassifier(recipe="bare", random_state=0).fit(X, y)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(folder)
        ...     bool((load(folder).predict(X) == model.predict(X)).all())
        True
    """
    folder = Path(path)
    folder = folder / "bundle" if (folder / "bundle").is_dir() else folder
    with refusing_damage(folder):
        members = verified_members(folder)
        return _rebuild(json.loads(members[MODEL]), unpack_tensors(members[TENSORS]))


def _rebuild(model: dict[str, Any], tensors: dict[str, Any]) -> PoiseClassifier | PoiseRegressor:
    recipe = from_toml(model["recipe"])
    estimator = PoiseRegressor(recipe=recipe) if model["task"] == "regression" else PoiseClassifier(recipe=recipe)
    if isinstance(estimator, PoiseClassifier):
        estimator.classes_ = _labels(model["classes"])
    if model["feature_names"] is not None:
        estimator.feature_names_in_ = np.array(model["feature_names"], dtype=object)
    estimator.n_features_in_ = model["num_features"]
    estimator.target_name_ = model["target_name"]
    estimator.chosen_ = model["chosen"]
    history = tuple(Epoch(**record) for record in model["history"])
    estimator._serve(recipe, unpack(tensors, model["served"], _task(model)), history)
    return estimator


def _task(model: dict[str, Any]) -> Task:
    if model["task"] == "regression":
        return Regression()
    return Binary() if model["task"] == "binary" else Multiclass(len(model["classes"]["labels"]))


def _labels(classes: dict[str, Any]) -> Any:
    kinds: dict[str, Any] = {"b": bool, "i": np.int64, "u": np.uint64, "f": np.float64, "U": str, "O": object}
    return np.array(classes["labels"], dtype=kinds[classes["kind"]])
