"""One fit of `benchmarks.peers`: the rows of a split, a process that fits them, and what is kept of it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks import _peers_setup
from benchmarks.datasets import SETS, load
from benchmarks.quality import _processor as processor
from poise._random import Key
from poise.data import encode_classes, split_rows

OURS = "poise"
RIVALS = ("HistGB", "LGBM-TD", "CatBoost-TD", "XGB-TD", "RealMLP-TD", "RealMLP-TD log loss", "TabM-D")
SYSTEMS = (*RIVALS, OURS)
MOST_ROWS = 50_000
THREADS = 2
QUIET = 0.2
_LEAST_PROBABILITY = 1e-7
_SMALL = 3500
RESULTS = Path(__file__).parent / "results" / "peers"


@dataclass(frozen=True, eq=False)
class Problem:
    """A table, split; classes are codes.

    Args:
        rows: Digest of the numbers of the test rows, so that only results on the same rows are compared.
    """

    name: str
    task: str
    target: str
    train: pl.DataFrame
    test: pl.DataFrame
    values: NDArray[np.float64]
    num_classes: int
    rows: str


def problem(name: str, split: int) -> Problem:
    """The table `name`, four fifths to learn from and one to judge by, with each class's share in both."""
    table, target, task = load(name)
    if name == "flights":
        kept = Key(0).stream("peers", name).permutation(table.height).numpy()[:MOST_ROWS]
        table = table[np.sort(kept)]
    codes = None
    num_classes = 0
    if task == "classification":
        classes, codes = encode_classes(table[target], name=target)
        num_classes = len(classes)
        table = table.with_columns(pl.Series(target, codes))
    else:
        table = table.with_columns(pl.col(target).cast(pl.Float64))
    parts = split_rows(table.height, key=Key(split).stream("peers"), test=0.2, val=0.0, classes=codes)
    test = table[parts.test]
    digest = hashlib.sha256(parts.test.astype("<i8").tobytes()).hexdigest()[:16]
    values = test[target].to_numpy().astype(np.float64)
    return Problem(name, task, target, table[parts.train], test.drop(target), values, num_classes, digest)


@dataclass(frozen=True)
class Record:
    """What is kept of a fit.

    Args:
        loss: On the test rows: log loss in nats, or root mean squared error over the target's standard deviation.
        score: Accuracy or R².
        others: Cores that other processes kept busy meanwhile, on average.
        load_before: The machine's load average when the fit began.
        error: Class of the error that ended the fit, or "".
    """

    system: str
    set: str
    split: int
    task: str
    rows: str
    loss: float | None
    score: float | None
    fit_seconds: float | None
    predict_seconds: float | None
    peak_mib: float | None
    threads: int
    others: float
    load_before: float
    processor: str
    cores: int
    versions: dict[str, str]
    error: str = ""

    @property
    def quiet(self) -> bool:
        """Whether the seconds count: two threads, and hardly anything else on the machine."""
        return self.threads == THREADS and self.others < QUIET

    @property
    def is_final(self) -> bool:
        """Whether it worked, or ran out of its time."""
        return self.loss is not None or self.error == "TimeoutExpired"

    def line(self) -> str:
        """As JSON."""
        return json.dumps({**asdict(self), "quiet": self.quiet})


def is_wanted(system: str, name: str, split: int) -> bool:
    """TabM-D, which takes minutes a fit on CPU, is left to small tables; label smoothing is for classes."""
    source = SETS[name]
    if system == "TabM-D":
        return split == 0 and source.num_rows < _SMALL
    return system != "RealMLP-TD log loss" or source.task == "classification"


def fit(system: str, given: Problem, split: int, *, threads: int = THREADS, limit: float | None = None) -> Record:
    """Fit and score one system in a process of its own.

    Args:
        system: One of SYSTEMS.
        given: The table.
        split: Number of the split, which is the seed of the fit, too.
        threads: Of the process.
        limit: Seconds after which it is stopped, or None.
    """
    job = {"system": system, "task": given.task, "target": given.target, "seed": split}
    answer, predictions, others, before = run({**job, "num_classes": given.num_classes}, given, threads, limit)
    loss, score = (None, None) if predictions is None else judge(given, predictions)
    return Record(
        system=system,
        set=given.name,
        split=split,
        task=given.task,
        rows=given.rows,
        loss=loss,
        score=score,
        fit_seconds=answer.get("fit_seconds"),
        predict_seconds=answer.get("predict_seconds"),
        peak_mib=answer.get("peak_mib"),
        threads=threads,
        others=others,
        load_before=round(before, 2),
        processor=processor(),
        cores=os.cpu_count() or 1,
        versions=answer.get("versions", {"python": platform.python_version()}),
        error=answer.get("error", ""),
    )


def run(
    job: dict[str, Any], given: Problem, threads: int, limit: float | None = None, folder: Path | None = None
) -> tuple[dict[str, Any], NDArray[np.float64] | None, float, float]:
    """Answer, predictions, busy cores of others and load before, of one job in a process of its own."""
    with tempfile.TemporaryDirectory() as made:
        place = folder or Path(made)
        place.mkdir(parents=True, exist_ok=True)
        given.train.write_parquet(place / "train.parquet")
        given.test.write_parquet(place / "test.parquet")
        (place / "job.json").write_text(json.dumps({**job, "threads": threads}), encoding="utf-8")
        before = os.getloadavg()[0]
        error, others = _process(job["system"], place, threads, limit)
        if error:
            return {"error": error}, None, others, before
        answer = json.loads((place / "answer.json").read_text(encoding="utf-8"))
        predictions = pl.read_parquet(place / "predictions.parquet").to_numpy().astype(np.float64)
        return answer, predictions, others, before


def _process(system: str, folder: Path, threads: int, limit: float | None) -> tuple[str, float]:
    """Name of the error, if any, and how many cores others kept busy meanwhile."""
    if system == OURS:
        command = [sys.executable, "-m", "benchmarks._peers_ours", str(folder)]
    else:
        # -P: the folder of the script holds a `statistics.py`, which is not Python's.
        worker = str(Path(__file__).with_name("_peers_worker.py"))
        command = [str(_peers_setup.python()), "-P", worker, str(folder)]
    watch, error = Watch(), ""
    try:
        done = subprocess.run(
            command,
            cwd=Path(__file__).parents[1],
            env=environment(threads),
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
        if done.returncode:
            print(done.stderr[-2000:], file=sys.stderr)
            named = re.findall(r"^(?:\w+\.)*(\w+(?:Error|Exception|Interrupt)):", done.stderr, re.MULTILINE)
            error = named[-1] if named else "Killed"
    except subprocess.TimeoutExpired:
        error = "TimeoutExpired"
    return error, watch.others()


def environment(threads: int) -> dict[str, str]:
    """Of a process that may use so many threads."""
    return {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), str(threads))}


class Watch:
    """Tells what other processes did since it was made."""

    def __init__(self) -> None:
        self._started, self._busy, self._own = time.perf_counter(), _busy_seconds(), _own_seconds()

    def others(self) -> float:
        """Cores that they kept busy, on average; children of this process that have ended are not among them."""
        busy, own = _busy_seconds() - self._busy, _own_seconds() - self._own
        return round(max(0.0, busy - own) / (time.perf_counter() - self._started), 3)


def _busy_seconds() -> float:
    """Seconds that all cores together have worked, or have been taken away, since the machine started."""
    try:
        fields = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:9]
    except OSError:
        return float("nan")
    user, nice, system, _, _, interrupt, soft, stolen = map(int, fields)
    return (user + nice + system + interrupt + soft + stolen) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    """Seconds that this process and those that it waited for have worked."""
    return sum(os.times()[:4])


def judge(given: Problem, predictions: NDArray[np.float64]) -> tuple[float, float]:
    """Loss and score of predictions for the test rows."""
    truth = given.values
    if given.task == "regression":
        error = float(np.sqrt(np.mean((predictions[:, 0] - truth) ** 2)))
        ratio = error / float(np.std(truth))
        return ratio, 1 - ratio**2
    codes = truth.astype(np.int64)
    shares = np.clip(predictions, _LEAST_PROBABILITY, None)
    shares = shares / shares.sum(axis=1, keepdims=True)
    loss = -float(np.mean(np.log(shares[np.arange(len(codes)), codes])))
    return loss, float(np.mean(predictions.argmax(axis=1) == codes))


def store(record: Record, results: Path = RESULTS) -> None:
    """Add a record to its system's file."""
    results.mkdir(parents=True, exist_ok=True)
    path = results / f"{record.system.lower().replace(' ', '-')}.jsonl"
    with path.open("a", encoding="utf-8") as file:
        file.write(record.line() + "\n")


def stored(results: Path = RESULTS) -> dict[tuple[str, str, int], Record]:
    """The record of each system, table and split: the last one that worked, with quiet ones before others."""
    found: dict[tuple[str, str, int], Record] = {}
    for record in _lines(results):
        key = (record.system, record.set, record.split)
        old = found.get(key)
        rank = (record.loss is not None, record.quiet)
        if old is None or rank >= (old.loss is not None, old.quiet):
            found[key] = record
    return found


def _lines(results: Path) -> Iterable[Record]:
    for path in sorted(results.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            fields = json.loads(line)
            fields.pop("quiet")
            yield Record(**fields)
