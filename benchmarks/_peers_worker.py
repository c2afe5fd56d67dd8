"""Fits one rival of `benchmarks.peers`, in a process and an environment of its own; knows nothing of poise.

    python _peers_worker.py FOLDER

FOLDER holds `job.json`, `train.parquet` and `test.parquet`; `predictions.parquet` and `answer.json` are put beside
them. The job's `kind` says what is done: "fit" fits one system, "hpo" lets RealMLP's own search run and notes when it
found what.
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
    if job["kind"] == "hpo":
        answer = search(job, *without_gaps(train, test), target, folder)
    else:
        model, train, test = prepared(job, train, test)
        started = time.perf_counter()
        model.fit(train, target)
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
    options = {} if regression else options
    model = kind(random_state=job["seed"], n_threads=job["threads"], device="cpu", **options)
    return model, *without_gaps(train, test)


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
        if not (train[name].isna().any() or test[name].isna().any()):
            continue
        middle = train[name].median()
        for part in (train, test):
            if train[name].isna().any():
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


def search(job: dict, train: pd.DataFrame, rows: pd.DataFrame, target: pd.Series, folder: Path) -> dict:
    """RealMLP's random search; the validation loss and the seconds so far of each configuration as it ends.

    Args:
        job: Has `val_rows`, the positions of the validation rows.
        train: Training and validation rows.
        rows: Of the test, for predictions of the winner.
        target: Of `train`.
        folder: Gets `trace.jsonl`, a line a configuration, while the search runs.
    """
    from pytabkit.models.alg_interfaces import ensemble_interfaces
    from pytabkit.models.sklearn import sklearn_interfaces

    regression = job["task"] == "regression"
    trace: list[dict[str, float]] = []
    original = ensemble_interfaces.Metrics

    class Noted(original):
        @staticmethod
        def apply(*arguments, **options):
            loss = original.apply(*arguments, **options)
            trace.append({"seconds": time.perf_counter() - started, "loss": float(loss)})
            with (folder / "trace.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(trace[-1]) + "\n")
            return loss

    ensemble_interfaces.Metrics = Noted
    kind = getattr(sklearn_interfaces, f"RealMLP_HPO_{'Regressor' if regression else 'Classifier'}")
    options = {} if regression else _CROSS_ENTROPY
    model = kind(
        random_state=job["seed"],
        n_threads=job["threads"],
        device="cpu",
        n_hyperopt_steps=job["configurations"],
        **options,
    )
    started = time.perf_counter()
    model.fit(train, target, val_idxs=np.asarray(job["val_rows"]))
    fitted = time.perf_counter()
    predictions = model.predict(rows) if regression else model.predict_proba(rows)
    write_predictions(folder, job, model, predictions)
    return {
        "fit_seconds": fitted - started,
        "predict_seconds": time.perf_counter() - fitted,
        "trace": trace,
    }


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
