"""What a search costs as rows and configurations grow: seconds and memory, each in a process of its own.

python -m benchmarks._peers_cost ROWS CONFIGURATIONS        # one measurement, as JSON
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl
from optuna.samplers import RandomSampler

from benchmarks import _peers_run as runs
from benchmarks._peers_worker import peak_mib
from benchmarks.datasets import load
from benchmarks.quality import _markdown, _wrapped
from benchmarks.quality import _processor as processor
from poise._random import Key
from poise.fleet import Fleet
from poise.train import Dataset, Regression
from poise.tuning import (
    PORTFOLIO,
    TABLE_SPACE,
    HalvingOptions,
    Proposer,
    Race,
    TableArena,
    feature_schema,
    make_folds,
)

ROWS = (1_000, 10_000, 50_000, 300_000)
CONFIGURATIONS = (8, 16, 32, 64, 128, 256)
FIXED_ROWS, FIXED_CONFIGURATIONS = 10_000, 16
EPOCHS = 27
FILE = runs.RESULTS / "search" / "cost.jsonl"


@dataclass(frozen=True)
class Cost:
    """One search of flights; a line of the file.

    Args:
        epochs: Of all trainings together.
        seconds: Of the search, machine code compiled before.
        peak_mib: Most memory of the process, the table included.
        others: Cores that other processes kept busy meanwhile.
    """

    rows: int
    configurations: int
    epochs: int
    seconds: float
    peak_mib: float
    threads: int
    others: float = 0.0
    processor: str = ""

    @property
    def quiet(self) -> bool:
        """Whether the seconds count."""
        return self.threads == runs.THREADS and self.others < runs.QUIET


def settings() -> list[tuple[int, int]]:
    """Rows and configurations of each measurement."""
    by_rows = [(rows, FIXED_CONFIGURATIONS) for rows in ROWS]
    return by_rows + [(FIXED_ROWS, number) for number in CONFIGURATIONS if number != FIXED_CONFIGURATIONS]


def measure(wanted: Iterable[tuple[int, int]], threads: int, *, quiet: bool = False) -> None:
    """Search where it is not stored yet, or, with `quiet`, where the seconds do not count."""
    done = {(one.rows, one.configurations): one for one in stored()}
    for rows, configurations in wanted:
        old = done.get((rows, configurations))
        if old is not None and (old.quiet or not quiet):
            continue
        command = [sys.executable, "-m", "benchmarks._peers_cost", str(rows), str(configurations)]
        watch = runs.Watch()
        printed = subprocess.run(
            command, cwd=Path(__file__).parents[1], env=runs.environment(threads), stdout=subprocess.PIPE, check=True
        ).stdout
        found = {**json.loads(printed), "threads": threads, "others": watch.others(), "processor": processor()}
        FILE.parent.mkdir(parents=True, exist_ok=True)
        with FILE.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
        told = f"{found['seconds']:.1f} s, {found['peak_mib']:,.0f} MiB"
        print(f"{rows:,} rows, {configurations} configurations: {told}", file=sys.stderr, flush=True)


def search(rows: int, configurations: int) -> Cost:
    """Halve so many random configurations on so many rows of flights."""
    table, target, _ = load("flights")
    table = table[np.sort(Key(0).stream("peers", "flights").permutation(table.height).numpy()[:rows])]
    features, values = table.drop(target), table[target].cast(pl.Float64).to_numpy()
    data, task = Dataset(features, feature_schema(features), values, np.ones(rows)), Regression()
    arena = TableArena(Fleet([], data), task, make_folds(data, task, 1, val_fraction=0.2, seed=0), max_epochs=EPOCHS)
    arena.enter({-1: TABLE_SPACE.base})
    arena.advance({-1: 1})
    started = time.perf_counter()
    proposer = Proposer(TABLE_SPACE, portfolio=PORTFOLIO, sampler=RandomSampler(seed=0))
    Race(arena, proposer, HalvingOptions(num_trials=configurations, patience=configurations)).run()
    seconds = time.perf_counter() - started
    epochs = sum(one.epoch for one in arena.fleet.states) - 1
    return Cost(rows, configurations, epochs, seconds, peak_mib(), threads=0)


def stored() -> list[Cost]:
    """The last measurement of each setting, with quiet ones before others."""
    found: dict[tuple[int, int], Cost] = {}
    for line in FILE.read_text(encoding="utf-8").splitlines() if FILE.exists() else []:
        one = Cost(**json.loads(line))
        old = found.get((one.rows, one.configurations))
        if old is None or one.quiet >= old.quiet:
            found[one.rows, one.configurations] = one
    return list(found.values())


def section() -> list[str]:
    """Of the page."""
    done = sorted(stored(), key=lambda one: (one.configurations != FIXED_CONFIGURATIONS, one.rows, one.configurations))
    if not done:
        return []
    rows = [["rows", "configurations", "epochs", "seconds", "seconds a million rows trained", "most memory, MiB"]]
    for one in done:
        # A fifth of the rows validates.
        millions = one.epochs * one.rows * 0.8 / 1e6
        seconds = [f"{one.seconds:.1f}", f"{one.seconds / millions:.2f}"] if one.quiet else ["not quiet", "–"]
        rows.append([f"{one.rows:,}", str(one.configurations), f"{one.epochs:,}", *seconds, f"{one.peak_mib:,.0f}"])
    text = (
        f"Halving of recipes from the portfolio and the space of tables, {EPOCHS} epochs each, on rows of flights, "
        "with two threads. If cost grows linearly, the seconds for a million rows trained stay where they are; recipes "
        "differ in width and depth, so more of them need not cost the same each. Memory is that of the whole process, "
        "the table included."
    )
    return ["## Cost", "", _wrapped(text), "", *_markdown(rows)]


if __name__ == "__main__":
    print(json.dumps(asdict(search(int(sys.argv[1]), int(sys.argv[2])))))
