"""Halving against training every configuration to its end: epochs spent, and what the winner does on test rows."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median

import numpy as np
from optuna.samplers import RandomSampler

from benchmarks import _peers_run as runs
from benchmarks._peers_run import Problem
from benchmarks._peers_statistics import equivalence
from benchmarks.quality import _markdown, _wrapped
from poise.fleet import Fleet
from poise.functional.schedule import FlatCosine
from poise.methods import EMA, BatchNorm, Dropout, EarlyStopping, GaussianNoise, LayerNorm, WeightDecay
from poise.recipe import AdamW, Network, Recipe
from poise.train import Binary, Dataset, Multiclass, Plan, Predictor, Regression, State, Task
from poise.tuning import (
    Float,
    HalvingOptions,
    Int,
    OneOf,
    Proposer,
    Race,
    Space,
    TableArena,
    feature_schema,
    make_folds,
)

SETS = ("german", "contraceptive", "credit_data", "phoneme", "concrete", "Wage")
SEEDS = 5
TRIALS, EPOCHS = 64, 81
ARMS = {"full": 1, "halving": None}
MARGIN = 0.02
FILE = runs.RESULTS / "search" / "halving.jsonl"


def space() -> Space:
    """Doses of all families, and the shape of the network; no training stops early, but its best epoch predicts."""
    base = Recipe(
        methods=(WeightDecay(), EMA(decay=0.99), EarlyStopping(patience=EPOCHS)),
        optimizer=AdamW(lr=FlatCosine(2e-3)),
        network=Network(width=128, depth=2, numeric="quantile", num_bins=16),
    )
    ranges = {
        "norm": OneOf(None, BatchNorm(), LayerNorm()),
        "dropout": OneOf(None, Dropout()),
        "Dropout.p": Float(0.05, 0.6),
        "noise": OneOf(None, GaussianNoise()),
        "GaussianNoise.std": Float(0.02, 0.5, log=True),
        "WeightDecay.weight_decay": Float(1e-3, 0.5, log=True),
        "optimizer.lr": Float(3e-4, 1e-2, log=True),
        "network.depth": Int(1, 3),
    }
    return Space(base, ranges)


@dataclass(frozen=True)
class Searched:
    """One search; a line of the file.

    Args:
        arm: "full" or "halving".
        epochs: Of all trainings together.
        winner: Number of the configuration with the lowest validation loss.
    """

    set: str
    seed: int
    arm: str
    epochs: int
    winner: int
    val_loss: float
    test_loss: float
    seconds: float
    trials: int
    max_epochs: int
    rows: str


def measure(names: Sequence[str], seeds: Sequence[int]) -> None:
    """Search where it is not stored yet."""
    done = {(one.set, one.seed, one.arm) for one in stored()}
    for seed in seeds:
        for name in names:
            for arm in ARMS:
                if (name, seed, arm) in done:
                    continue
                found = search(runs.problem(name, seed), seed, arm)
                FILE.parent.mkdir(parents=True, exist_ok=True)
                with FILE.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(found)) + "\n")
                told = f"{found.epochs:,} epochs, test loss {found.test_loss:.4f}, {found.seconds:.1f} s"
                print(f"{name} seed {seed}, {arm}: {told}", file=sys.stderr, flush=True)


def search(given: Problem, seed: int, arm: str) -> Searched:
    """One arm on one table: the configurations of a seed are those of both arms, and train alike as far as they go."""
    data, task = dataset(given)
    folds = make_folds(data, task, 1, val_fraction=0.2, seed=seed)
    started = time.perf_counter()
    fleet = Fleet([], data)
    arena = TableArena(fleet, task, folds, max_epochs=EPOCHS, seed=seed)
    # Patience beyond the number of batches, so that both arms try every configuration.
    options = HalvingOptions(num_trials=TRIALS, num_rungs=ARMS[arm], patience=TRIALS)
    race = Race(arena, Proposer(space(), sampler=RandomSampler(seed=seed), seed=seed), options)
    race.run()
    winner = race.complete[0]
    plan, state = arena.plan(winner.number), arena.state(winner.number)
    return Searched(
        set=given.name,
        seed=seed,
        arm=arm,
        epochs=sum(one.epoch for one in fleet.states),
        winner=winner.number,
        val_loss=winner.loss,
        test_loss=loss_on_test(given, plan, state),
        seconds=round(time.perf_counter() - started, 2),
        trials=len(race.trials),
        max_epochs=EPOCHS,
        rows=given.rows,
    )


def loss_on_test(given: Problem, plan: Plan, state: State) -> float:
    """Of one network, in the units of the peers' page."""
    predictions = Predictor(plan.recipe, plan.task, state).predict(given.test).numpy()
    return runs.judge(given, predictions.reshape(given.test.height, -1))[0]


def dataset(given: Problem) -> tuple[Dataset, Task]:
    """The training rows as fleets take them."""
    features = given.train.drop(given.target)
    values = given.train[given.target].to_numpy().astype(np.float64)
    task: Task = Regression()
    if given.num_classes:
        task = Binary() if given.num_classes == 2 else Multiclass(given.num_classes)
    return Dataset(features, feature_schema(features), values, np.ones(len(values))), task


def stored() -> list[Searched]:
    """All that was measured."""
    lines = FILE.read_text(encoding="utf-8").splitlines() if FILE.exists() else []
    return [Searched(**json.loads(line)) for line in lines]


def section() -> list[str]:
    """Of the page."""
    found = {(one.set, one.seed, one.arm): one for one in stored()}
    pairs: dict[str, list[tuple[Searched, Searched]]] = {}
    for name, seed, arm in found:
        if arm == "halving" and (name, seed, "full") in found:
            pairs.setdefault(name, []).append((found[name, seed, "halving"], found[name, seed, "full"]))
    if not pairs:
        return []
    rows = [["table", "seeds", "epochs, full / halving", "fewer", "test loss, full / halving", "same winner"]]
    for name, both in pairs.items():
        epochs = [fmean(one.epochs for one in arm) for arm in zip(*both, strict=True)]
        losses = [fmean(one.test_loss for one in arm) for arm in zip(*both, strict=True)]
        same = sum(halved.winner == full.winner for halved, full in both)
        rows.append([name, str(len(both)), f"{epochs[1]:,.0f} / {epochs[0]:,.0f}", f"{epochs[1] / epochs[0]:.1f}x"])
        rows[-1] += [f"{losses[1]:.4f} / {losses[0]:.4f}", f"{same} of {len(both)}"]
    logs = {name: [math.log(a.test_loss / b.test_loss) for a, b in both] for name, both in pairs.items()}
    ratios = [full.epochs / halved.epochs for both in pairs.values() for halved, full in both]
    text = (
        f"{TRIALS} random configurations of {EPOCHS} epochs, once all trained to their end and once with halving; the "
        "trainings are the same as far as they go. The one with the lowest validation loss is judged by the test rows. "
        f"Epochs fall by a factor of {median(ratios):.1f} (median; {min(ratios):.1f} to {max(ratios):.1f})."
    )
    return ["## Halving", "", _wrapped(text), "", *_markdown(rows), "", *_verdict(logs)]


def _verdict(logs: dict[str, list[float]]) -> list[str]:
    if len(logs) < 2:
        return []
    test = equivalence(logs, math.log1p(MARGIN))
    mean, low, high = (math.expm1(value) for value in test.mean)
    text = (
        f"Beside the full search, halving changes the winner's test loss by {mean:+.2%} (90 % interval {low:+.2%} to "
        f"{high:+.2%}, over tables). Two one-sided tests with a margin of {MARGIN:.0%}: a loss higher by the margin "
        f"has p = {test.p_worse:.1g}, one lower by it p = {test.p_better:.1g}, so halving is "
        f"{'not inferior' if test.not_inferior else 'not shown to be as good'}"
        f"{' and equivalent' if test.equivalent else ''} at 5 %."
    )
    return [_wrapped(text)]
