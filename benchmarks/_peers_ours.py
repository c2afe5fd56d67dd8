"""Fits poise for `benchmarks.peers`, in a process of its own, by the protocol of `_peers_worker`.

python -m benchmarks._peers_ours FOLDER
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import polars as pl

from benchmarks._peers_worker import peak_mib, versions
from poise import PoiseClassifier, PoiseRegressor


def fit_poise(train: pl.DataFrame, target: pl.Series, task: str, seed: int) -> PoiseClassifier | PoiseRegressor:
    """What somebody gets who changes no setting; `target` holds class codes or values."""
    kind = PoiseRegressor if task == "regression" else PoiseClassifier
    return kind(random_state=seed).fit(train, target.to_numpy())


def main() -> None:
    folder = Path(sys.argv[1])
    warnings.filterwarnings("ignore")
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    train, test = (pl.read_parquet(folder / f"{name}.parquet") for name in ("train", "test"))
    target = train[job["target"]]
    started = time.perf_counter()
    model = fit_poise(train.drop(job["target"]), target, job["task"], job["seed"])
    fitted = time.perf_counter()
    values = model.predict(test) if job["task"] == "regression" else model.predict_proba(test)
    predicted = time.perf_counter()
    columns = [values] if job["task"] == "regression" else list(values.T)
    table = pl.DataFrame({str(index): column for index, column in enumerate(columns)})
    table.write_parquet(folder / "predictions.parquet")
    answer = {
        "fit_seconds": fitted - started,
        "predict_seconds": predicted - fitted,
        "peak_mib": peak_mib(),
        "versions": {**versions(), "poise": version("poise"), "numba": version("numba")},
    }
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
