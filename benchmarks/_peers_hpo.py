"""Seconds to the validation loss of RealMLP's own random search over 50 configurations, on the same validation rows.

python -m benchmarks._peers_hpo SET LOSS SECONDS        # poise's search for that loss, as JSON
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks import _peers_run as runs
from benchmarks._peers_halving import dataset
from benchmarks._peers_run import Problem
from benchmarks.quality import _markdown, _wrapped
from poise._random import Key
from poise.data import split_rows
from poise.ensemble import greedy_weights
from poise.fleet import Fleet
from poise.train import Dataset, Plan, Predictor, State, Task
from poise.tuning import PORTFOLIO, TABLE_SPACE, Fold, HalvingOptions, Proposer, Race, TableArena, Trial

SETS = ("german", "concrete", "phoneme", "wa_churn")
CONFIGURATIONS = 50
MOST_TRIALS, FINALISTS = 2048, 8
_POOL = 32
SYSTEM = "RealMLP-HPO"
FILE = runs.RESULTS / "search" / "hpo.jsonl"
OURS_FILE = runs.RESULTS / "search" / "ours.jsonl"
_VAL_SHARE = 0.2


@dataclass(frozen=True, eq=False)
class Inner:
    """Split 0 of a table, with a validation part that both searches look at.

    Args:
        outer: Training rows include the validation rows.
        val_rows: Positions among the training rows.
    """

    outer: Problem
    val_rows: NDArray[np.int64]

    @property
    def asked(self) -> Problem:
        """The same, with the validation rows before the test rows, so that one prediction covers both."""
        outer = self.outer
        val = outer.train[self.val_rows]
        values = np.concatenate([val[outer.target].to_numpy().astype(np.float64), outer.values])
        return replace(outer, test=pl.concat([val.drop(outer.target), outer.test]), values=values)

    def judge(self, predictions: NDArray[np.float64]) -> tuple[float, float]:
        """Losses on validation and test rows of predictions for the rows of `asked`."""
        asked, number = self.asked, len(self.val_rows)
        parts = (slice(0, number), slice(number, None))
        val, test = (runs.judge(replace(asked, values=asked.values[part]), predictions[part])[0] for part in parts)
        return val, test


def inner(name: str) -> Inner:
    """Split 0 of the table `name`, and a fifth of its training rows for validation."""
    outer = runs.problem(name, 0)
    classes = outer.train[outer.target].to_numpy() if outer.num_classes else None
    parts = split_rows(outer.train.height, key=Key(0).stream("peers", "val"), test=0.0, val=_VAL_SHARE, classes=classes)
    return Inner(outer, parts.val)


@dataclass(frozen=True)
class Configuration:
    """One configuration of the rival's search; a line of the file."""

    set: str
    number: int
    rows: str
    val_loss: float
    test_loss: float
    seconds: float
    threads: int
    others: float
    processor: str
    versions: dict[str, str]

    @property
    def quiet(self) -> bool:
        """Whether the seconds count."""
        return self.threads == runs.THREADS and self.others < runs.QUIET


@dataclass(frozen=True)
class Reached:
    """When our search came to a loss; a line of the file.

    Args:
        val_loss: What the rival's search had come to.
        seconds: From the start until a network was as good; None if none was within the seconds of the rival's search.
        best: Lowest validation loss of all networks and epochs.
        test_loss: Of the network that the search chose.
        total: Seconds of the whole search.
        ensemble_seconds: Until an ensemble of networks trained so far was as good; its validation loss is measured on
            rows that did not choose its weights.
        ensemble_test_loss: Of that ensemble, or of the last one.
    """

    set: str
    rows: str
    val_loss: float
    seconds: float | None
    best: float
    test_loss: float
    total: float
    processor: str
    ensemble_seconds: float | None
    ensemble_test_loss: float
    others: float = 0.0
    threads: int = 0

    @property
    def quiet(self) -> bool:
        """Whether the seconds count."""
        return self.threads == runs.THREADS and self.others < runs.QUIET


class Ensembles:
    """Ensembles of the best networks that a race has trained so far.

    Args:
        given: Table and rows.
        task: What is predicted.
        arena: That trains the networks.
    """

    def __init__(self, given: Inner, task: Task, arena: TableArena) -> None:
        self.given, self.task, self.arena = given, task, arena
        self.target = given.outer.train[given.outer.target].to_numpy().astype(np.float64)[given.val_rows]
        self.table = given.asked.test
        self.known: dict[tuple[int, int], NDArray[np.float64]] = {}

    def losses(self, trials: Sequence[Trial]) -> tuple[float, float]:
        """Loss on validation rows that chose no weight, and on the test rows, in the units of the peers' page."""
        best = sorted((one for one in trials if one.rungs and one.end != "failed"), key=lambda one: one.loss)[:_POOL]
        said = np.stack([self._predictions(one) for one in best])
        number = len(self.target)
        found = greedy_weights(said[:, :number], self.target, task_kind=self.task.kind)
        loss = math.sqrt(found.loss) / float(np.std(self.target)) if self.task.kind == "regression" else found.loss
        average = np.tensordot(found.weights, said, axes=1)
        return loss, self.given.judge(average.reshape(len(average), -1))[1]

    def _predictions(self, trial: Trial) -> NDArray[np.float64]:
        place = trial.number, trial.epochs
        if place not in self.known:
            plan, state = self.arena.plan(trial.number), self.arena.state(trial.number)
            self.known[place] = Predictor(plan.recipe, self.task, state).predict(self.table).numpy()
        return self.known[place]


def measure(names: Sequence[str], threads: int, *, quiet: bool = False, limit: int = CONFIGURATIONS) -> None:
    """Try the rival's configurations that are not stored yet, each in a process of its own.

    Args:
        names: Tables.
        threads: Of each process.
        quiet: Whether to measure again what does not count.
        limit: Number of configurations, which are those that the search would try first.
    """
    for name in names:
        done = stored(name)
        given = inner(name)
        for number in range(limit):
            if number in done and (done[number].quiet or not quiet):
                continue
            configuration = _fit(given, number, threads)
            FILE.parent.mkdir(parents=True, exist_ok=True)
            with FILE.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(configuration)) + "\n")
            told = f"{configuration.val_loss:.4f} in {configuration.seconds:.1f} s"
            print(f"{name}, {SYSTEM} {number}: {told}", file=sys.stderr, flush=True)


def _fit(given: Inner, number: int, threads: int) -> Configuration:
    asked = given.asked
    job = {"system": SYSTEM, "configuration": number, "task": asked.task, "target": asked.target, "seed": 0}
    job |= {"num_classes": asked.num_classes, "val_rows": given.val_rows.tolist()}
    answer, predictions, others, _ = runs.run(job, asked, threads)
    if predictions is None:
        raise RuntimeError(f"{asked.name}: configuration {number} of {SYSTEM} ended with {answer['error']}.")
    val_loss, test_loss = given.judge(predictions)
    return Configuration(
        set=asked.name,
        number=number,
        rows=asked.rows,
        val_loss=val_loss,
        test_loss=test_loss,
        seconds=answer["fit_seconds"],
        threads=threads,
        others=others,
        processor=runs.processor(),
        versions=answer["versions"],
    )


def stored(name: str) -> dict[int, Configuration]:
    """By number; quiet ones before others, later ones before earlier ones."""
    found: dict[int, Configuration] = {}
    lines = FILE.read_text(encoding="utf-8").splitlines() if FILE.exists() else []
    for line in lines:
        one = Configuration(**json.loads(line))
        if one.set == name and (one.number not in found or one.quiet >= found[one.number].quiet):
            found[one.number] = one
    return found


def target(name: str) -> tuple[float, float] | None:
    """The lowest validation loss of the rival's whole search, and its seconds; None if it is not complete."""
    done = stored(name).values()
    if len(done) < CONFIGURATIONS:
        return None
    return min(one.val_loss for one in done), sum(one.seconds for one in done)


def measure_ours(names: Sequence[str], threads: int) -> None:
    """Search with poise, in a process of its own, for what the rival's whole search came to."""
    for name in names:
        goal = target(name)
        if goal is None:
            print(f"{name}: {SYSTEM} is not complete", file=sys.stderr)
            continue
        command = [sys.executable, "-m", "benchmarks._peers_hpo", name, *map(repr, goal)]
        watch = runs.Watch()
        printed = subprocess.run(
            command, cwd=Path(__file__).parents[1], env=runs.environment(threads), stdout=subprocess.PIPE, check=True
        ).stdout
        found = Reached(**{**json.loads(printed), "others": watch.others(), "threads": threads})
        FILE.parent.mkdir(parents=True, exist_ok=True)
        with OURS_FILE.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(found)) + "\n")
        told = "not reached" if found.seconds is None else f"{found.seconds:.1f} s"
        print(f"{name}, poise to {goal[0]:.4f}: {told}; best {found.best:.4f}", file=sys.stderr, flush=True)


def search(name: str, goal: float, limit: float) -> Reached:
    """Race on the rival's training and validation rows until a network is as good as `goal`, or `limit` seconds."""
    given = inner(name)
    data, task = dataset(given.outer)
    num_rows = data.table.height
    fold = Fold(np.setdiff1d(np.arange(num_rows), given.val_rows), given.val_rows)
    epochs = TABLE_SPACE.base.budget.epochs_for(len(fold.train))
    _compile(data, task, fold)
    started, seen = time.perf_counter(), [(0.0, math.inf)]
    spread = float(np.std(data.target[fold.val]))

    def note(_: int, __: Plan, state: State) -> None:
        loss = state.history[-1].val_loss
        loss = math.sqrt(loss) * state.target_scale / spread if task.kind == "regression" else loss
        seen.append((time.perf_counter() - started, min(seen[-1][1], loss)))

    def ended() -> bool:
        return seen[-1][1] <= goal or time.perf_counter() - started > limit

    def look(trials: Sequence[Trial]) -> None:
        nonlocal together, ensemble_test_loss
        if together is None:
            loss, ensemble_test_loss = ensembles.losses(trials)
            together = time.perf_counter() - started if loss <= goal else None

    together: float | None = None
    ensemble_test_loss = math.nan
    arena = TableArena(Fleet([], data), task, [fold], max_epochs=epochs, on_epoch=note)
    ensembles = Ensembles(given, task, arena)
    # It goes on through plateaus, as the rival's does.
    options = HalvingOptions(MOST_TRIALS, min_complete=FINALISTS, patience=MOST_TRIALS)
    race = Race(arena, Proposer(TABLE_SPACE, portfolio=PORTFOLIO), options, on_tick=look, out_of_time=ended)
    race.run()
    winner = min(race.best, key=lambda one: one.loss).number
    predictions = Predictor(arena.plan(winner).recipe, task, arena.state(winner)).predict(given.asked.test).numpy()
    return Reached(
        set=name,
        rows=given.outer.rows,
        val_loss=goal,
        seconds=next((seconds for seconds, loss in seen if loss <= goal), None),
        best=seen[-1][1],
        test_loss=given.judge(predictions.reshape(len(predictions), -1))[1],
        total=time.perf_counter() - started,
        processor=runs.processor(),
        ensemble_seconds=together,
        ensemble_test_loss=ensemble_test_loss,
    )


def _compile(data: Dataset, task: Task, fold: Fold) -> None:
    """Machine code is made once on a machine, so it is made before the clock starts."""
    arena = TableArena(Fleet([], data), task, [fold], max_epochs=1)
    arena.enter(dict(enumerate(PORTFOLIO.values())))
    arena.advance(dict.fromkeys(range(len(PORTFOLIO)), 1))


def ours() -> dict[str, Reached]:
    """The last measurement of each table."""
    lines = OURS_FILE.read_text(encoding="utf-8").splitlines() if OURS_FILE.exists() else []
    return {one.set: one for one in (Reached(**json.loads(line)) for line in lines)}


def section() -> list[str]:
    """Of the page."""
    rows = [["table", "configurations", "its best validation loss", "its seconds to there", "poise's ensemble"]]
    rows[0] += ["ratio", "poise's single network", "ratio", "test loss, its / ensemble's / single network's"]
    reached = ours()
    for name in SETS:
        done = [one for _, one in sorted(stored(name).items())]
        if not done:
            continue
        losses = [one.val_loss for one in done]
        clock = list(accumulate(one.seconds for one in done))
        best = min(range(len(losses)), key=losses.__getitem__)
        counts = all(one.quiet for one in done[: best + 1])
        rows.append([name, str(len(done)), f"{losses[best]:.4f}", _seconds(clock[best], counts)])
        rows[-1] += _ours(reached.get(name), done[best].test_loss, clock[best] if counts else math.nan)
    if len(rows) == 1:
        return []
    words = (
        f"RealMLP's own search ({SYSTEM} of pytabkit, its default space, log loss for classes) tries "
        f"{CONFIGURATIONS} random configurations, one after the other with two threads. Both searches look at the same "
        "validation rows, a fifth of the training rows of split 0, and neither is told of the test rows. Seconds are "
        "quoted if other processes left the machine alone. Poise's are those until the ensemble of the networks that "
        "its search has trained by then is as good as the best of the rival's, on validation rows that did not choose "
        "its weights; and until a single network is, at the end of one of its epochs, which ends the search. It gives "
        "up after the seconds of the rival's whole search."
    )
    return ["## Seconds to the validation loss of RealMLP's search", "", _wrapped(words), "", *_markdown(rows)]


def _ours(found: Reached | None, test_loss: float, seconds: float) -> list[str]:
    if found is None:
        return ["–"] * 4 + [f"{test_loss:.4f} / – / –"]
    told = []
    for own in (found.ensemble_seconds, found.seconds):
        ratio = f"{seconds / own:.1f}x" if own is not None and found.quiet and math.isfinite(seconds) else "–"
        told += ["not reached" if own is None else _seconds(own, found.quiet), ratio]
    return [*told, f"{test_loss:.4f} / {found.ensemble_test_loss:.4f} / {found.test_loss:.4f}"]


def _seconds(value: float, counts: bool) -> str:
    return f"{value:.0f}" if counts else "not quiet"


if __name__ == "__main__":
    print(json.dumps(asdict(search(sys.argv[1], *map(float, sys.argv[2:])))))
