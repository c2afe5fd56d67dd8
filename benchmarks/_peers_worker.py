"""Fits one rival of `benchmarks.peers`, in a process and an environment of its own; knows nothing of poise.

    python _peers_worker.py FOLDER

FOLDER holds `job.json`, `train.parquet` and `test.parquet`; `predictions.parquet` and `answer.json` are put beside
them.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
import resource
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

_PACKAGES = ("pytabkit", "torch", "lightgbm", "catboost", "xgboost", "scikit-learn", "numpy", "pandas")
_MISSING = "(missing)"

# For log loss the wrapped trees and TabM stop by log loss, and RealMLP does without label smoothing, as its authors
# advise; left alone, all of them stop by the share of wrong classes. "RealMLP-TD" is left alone.
_CROSS_ENTROPY = {"val_metric_name": "cross_entropy"}
SYSTEMS: dict[str, tuple[str, dict[str, object]]] = {
    "RealMLP-TD": ("RealMLP_TD", {}),
    "RealMLP-TD log loss": ("RealMLP_TD", {**_CROSS_ENTROPY, "use_ls": False}),
    "RealMLP-HPO": ("RealMLP_HPO", _CROSS_ENTROPY),
    "TabM-D": ("TabM_D", _CROSS_ENTROPY),
    "LGBM-TD": ("LGBM_TD", _CROSS_ENTROPY),
    "CatBoost-TD": ("CatBoost_TD", _CROSS_ENTROPY),
    "XGB-TD": ("XGB_TD", _CROSS_ENTROPY),
}


def main() -> None:
    folder = Path(sys.argv[1])
    warnings.filterwarnings("ignore")
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    train, test = (pd.read_parquet(folder / f"{name}.parquet") for name in ("train", "test"))
    target = train.pop(job["target"])
    train, test = with_categories(train, test)
    model, train, test = prepared(job, train, test)
    options = {"val_idxs": np.asarray(job["val_rows"])} if "val_rows" in job else {}
    started = time.perf_counter()
    model.fit(train, target, **options)
    fitted = time.perf_counter()
    predictions = model.predict(test) if job["task"] == "regression" else model.predict_proba(test)
    answer = {"fit_seconds": fitted - started, "predict_seconds": time.perf_counter() - fitted}
    write_predictions(folder, job, model, predictions)
    answer |= {"peak_mib": peak_mib(), "versions": versions()}
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def prepared(job: dict, train: pd.DataFrame, test: pd.DataFrame):
    """The model of a job, and the table as it wants it."""
    if job["system"] == "HistGB":
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        kind = HistGradientBoostingRegressor if job["task"] == "regression" else HistGradientBoostingClassifier
        # More than 255 categories are no categories to it.
        few = [name for name in train if train[name].dtype != "category" or train[name].nunique() <= 255]
        many = {name: train[name].cat.codes for name in train if name not in few}
        many_test = {name: test[name].cat.codes for name in many}
        return kind(random_state=job["seed"]), train.assign(**many), test.assign(**many_test)
    from pytabkit.models.sklearn import sklearn_interfaces

    name, options = SYSTEMS[job["system"]]
    regression = job["task"] == "regression"
    kind = getattr(sklearn_interfaces, f"{name}_{'Regressor' if regression else 'Classifier'}")
    if "configuration" in job:
        kind = of_search(kind, job["configuration"])
    options = {} if regression else options
    model = kind(random_state=job["seed"], n_threads=job["threads"], device="cpu", **options)
    return model, *without_gaps(train, test)


def of_search(kind: type, index: int) -> type:
    """RealMLP's random search over the one configuration that it would try as number `index`.

    The wrapper draws each configuration from the seed and its number, so that the search may be run, and timed, a
    configuration at a time.
    """
    from pytabkit.models.alg_interfaces.ensemble_interfaces import AlgorithmSelectionAlgInterface
    from pytabkit.models.alg_interfaces.nn_interfaces import RandomParamsNNAlgInterface

    class OfSearch(kind):
        def _create_alg_interface(self, n_cv: int):
            config = self.get_config()
            return AlgorithmSelectionAlgInterface([RandomParamsNNAlgInterface(model_idx=index, **config)], **config)

    return OfSearch


def with_categories(train: pd.DataFrame, test: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Everything that is not a number as a category; categories are those of the training rows and the missing one."""
    train, test = train.copy(), test.copy()
    for name in train:
        if pd.api.types.is_bool_dtype(train[name]) or not pd.api.types.is_numeric_dtype(train[name]):
            parts = [
                part[name].astype(object).where(part[name].notna(), _MISSING).astype(str) for part in (train, test)
            ]
            kind = pd.CategoricalDtype(sorted(set(parts[0])))
            train[name], test[name] = (part.astype(kind) for part in parts)
        else:
            train[name], test[name] = (part[name].astype(np.float64) for part in (train, test))
    return train, test


def without_gaps(train: pd.DataFrame, test: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Medians of the training rows in place of missing numbers, which a column of its own marks."""
    train, test = train.copy(), test.copy()
    for name in list(train.select_dtypes("number")):
        middle, is_marked = train[name].median(), train[name].isna().any()
        for part in (train, test):
            if is_marked:
                part[f"{name} is missing"] = part[name].isna().astype(np.float64)
            part[name] = part[name].fillna(0.0 if np.isnan(middle) else middle)
    return train, test


def write_predictions(folder: Path, job: dict, model, predictions: np.ndarray) -> None:
    """One column of values, or one a class; a class that the model does not know has probability zero."""
    if job["task"] == "regression":
        table = pd.DataFrame({"0": np.asarray(predictions, dtype=np.float64)})
    else:
        known = np.zeros((len(predictions), job["num_classes"]))
        known[:, np.asarray(model.classes_, dtype=np.int64)] = predictions
        table = pd.DataFrame(known, columns=[str(index) for index in range(job["num_classes"])])
    table.to_parquet(folder / "predictions.parquet")


def peak_mib() -> float:
    """Most memory that this process held."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def versions() -> dict[str, str]:
    """Of Python and of what the rivals are made of."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


if __name__ == "__main__":
    main()
