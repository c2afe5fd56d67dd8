"""A fitted network on disk: a folder of safetensors and JSON, with a SHA-256 manifest over every member.

Nothing in it is code, and reading it imports nothing: recipes and tasks come from closed registries.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load as unpack_tensors

from poise._errors import BundleError, PoiseError
from poise.estimators._base import PoiseEstimator
from poise.estimators._classifier import PoiseClassifier
from poise.estimators._regressor import PoiseRegressor
from poise.recipe import from_toml, to_toml
from poise.train import (
    Binary,
    Multiclass,
    Predictor,
    Regression,
    State,
    Task,
    pack_tensors,
    remove_leftovers,
    to_json,
    write_atomically,
)

FORMAT = 1
_MANIFEST, _TENSORS, _MODEL = "manifest.json", "weights.safetensors", "model.json"
_UNSERVED = ("weights", "statistics", "exp_avg", "exp_avg_sq", "average")


def save_bundle(estimator: PoiseEstimator, folder: Path, *, target_name: str = "") -> None:
    """Write `estimator` to `folder`; the manifest comes last and makes the bundle valid."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    state = estimator.predictor_.state
    served = {name: tensor for name, tensor in state.tensors.items() if name not in _UNSERVED}
    members = {_TENSORS: pack_tensors(served), _MODEL: to_json(_describe(estimator, target_name))}
    for name, content in members.items():
        write_atomically(folder / name, content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in members.items()}
    write_atomically(folder / _MANIFEST, to_json({"format": FORMAT, "sha256": digests}))


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
    with _refusing_damage(folder):
        members = _verified_members(folder)
        return _rebuild(json.loads(members[_MODEL]), unpack_tensors(members[_TENSORS]))


@contextmanager
def _refusing_damage(folder: Path) -> Iterator[None]:
    try:
        yield
    except BundleError:
        raise
    except (PoiseError, OSError, ValueError, KeyError, TypeError, IndexError, RuntimeError, SafetensorError) as error:
        raise _damaged(folder, str(error) or type(error).__name__) from error


def _damaged(folder: Path, why: str) -> BundleError:
    repair = "Copy the run again from where it was made, or fit anew."
    return BundleError(f"The bundle cannot be trusted: {why}.", where=f"folder {str(folder)!r}", repair=repair)


def _verified_members(folder: Path) -> dict[str, bytes]:
    if not (folder / _MANIFEST).is_file():
        raise BundleError(
            f"There is no bundle here: {_MANIFEST} is missing.",
            where=f"folder {str(folder)!r}",
            repair="Give the folder that `poise fit --out` or `save` wrote.",
        )
    raw = (folder / _MANIFEST).read_bytes()
    manifest = json.loads(raw)
    members = {name: (folder / name).read_bytes() for name in (_TENSORS, _MODEL)}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in members.items()}
    if isinstance(manifest, dict) and manifest.get("format", FORMAT) != FORMAT:
        raise _damaged(folder, f"its format is {manifest['format']!r}, this Poise reads {FORMAT}")
    # Compared as bytes: the manifest has one valid spelling, so that no bit of it is free.
    if raw != to_json({"format": FORMAT, "sha256": digests}):
        changed = [name for name in members if manifest.get("sha256", {}).get(name) != digests[name]]
        raise _damaged(folder, f"the manifest does not match {' and '.join(changed) or 'the format'}")
    extra = {path.name for path in folder.iterdir()} - {*members, _MANIFEST}
    if extra:
        raise _damaged(folder, f"it holds files that do not belong to it: {sorted(extra)}")
    return members


def _describe(estimator: PoiseEstimator, target_name: str) -> dict[str, Any]:
    predictor = estimator.predictor_
    classes = getattr(estimator, "classes_", None)
    names = getattr(estimator, "feature_names_in_", None)
    return {
        "task": predictor.task.kind,
        "classes": None if classes is None else {"kind": classes.dtype.kind, "labels": classes.tolist()},
        "feature_names": None if names is None else [str(name) for name in names],
        "num_features": estimator.n_features_in_,
        "target_name": target_name,
        "chosen": estimator.chosen_,
        "recipe": to_toml(estimator.recipe_),
        "state": predictor.state.numbers(),
    }


def _rebuild(model: dict[str, Any], tensors: dict[str, Any]) -> PoiseClassifier | PoiseRegressor:
    recipe, state = from_toml(model["recipe"]), State.from_numbers(tensors, model["state"])
    estimator = PoiseRegressor(recipe=recipe) if model["task"] == "regression" else PoiseClassifier(recipe=recipe)
    if isinstance(estimator, PoiseClassifier):
        estimator.classes_ = _labels(model["classes"])
    if model["feature_names"] is not None:
        estimator.feature_names_in_ = np.array(model["feature_names"], dtype=object)
    estimator.n_features_in_ = model["num_features"]
    estimator.target_name_ = model["target_name"]
    estimator.chosen_ = model["chosen"]
    estimator._serve(recipe, Predictor(recipe, _task(model), state))
    return estimator


def _task(model: dict[str, Any]) -> Task:
    if model["task"] == "regression":
        return Regression()
    return Binary() if model["task"] == "binary" else Multiclass(len(model["classes"]["labels"]))


def _labels(classes: dict[str, Any]) -> Any:
    kinds: dict[str, Any] = {"b": bool, "i": np.int64, "u": np.uint64, "f": np.float64, "U": str, "O": object}
    return np.array(classes["labels"], dtype=kinds[classes["kind"]])
