"""Whether networks that multiply in bfloat16 predict as well: paired trainings on development tables."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from benchmarks import _peers_run as runs
from benchmarks._peers_halving import dataset
from benchmarks._peers_statistics import equivalence
from poise.fleet import Fleet
from poise.fleet.compiled import CompiledEngine
from poise.recipe import KNOWN
from poise.train import Plan, Predictor
from poise.tuning import make_folds

SETS = ("german", "contraceptive", "credit_data", "phoneme", "concrete", "Wage")
RECIPES = ("batchnorm-2015", "cocktail")
SEEDS = 5
MARGIN = 0.02


def test_losses(name: str, seed: int, recipe: str) -> tuple[float, float]:
    """Of the same training, with float32 products and with bfloat16 ones."""
    given = runs.problem(name, seed)
    data, task = dataset(given)
    (fold,) = make_folds(data, task, 1, val_fraction=0.2, seed=seed)
    plan = Plan(recipe, KNOWN[recipe], task, fold.train, fold.val, seed)
    losses = []
    for matmul in ("float32", "bfloat16"):
        (state,) = Fleet([plan], data, engines=[CompiledEngine(matmul=matmul)]).run()
        predictions = Predictor(plan.recipe, task, state).predict(given.test).numpy()
        losses.append(runs.judge(given, predictions.reshape(given.test.height, -1))[0])
    return losses[0], losses[1]


def measure_losses(names: Sequence[str] = SETS, seeds: int = SEEDS) -> dict[str, object]:
    """The change of the test loss, relative, over tables, with a verdict."""
    logs: dict[str, list[float]] = {}
    for name in names:
        for seed in range(seeds):
            for recipe in RECIPES:
                exact, half = test_losses(name, seed, recipe)
                logs.setdefault(name, []).append(math.log(half / exact))
        print(f"{name}: bfloat16 changes the test loss by {math.expm1(sum(logs[name]) / len(logs[name])):+.2%}",
              file=sys.stderr, flush=True)  # fmt: skip
    test = equivalence(logs, math.log1p(MARGIN))
    mean, low, high = (math.expm1(value) for value in test.mean)
    return {
        "tables": list(logs),
        "trainings": len(names) * seeds * len(RECIPES),
        "change": mean,
        "low": low,
        "high": high,
        "p_worse": test.p_worse,
        "p_better": test.p_better,
        "equivalent": test.equivalent,
    }
