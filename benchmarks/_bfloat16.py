"""Whether networks that multiply in bfloat16 predict as well: paired trainings on development tables."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from benchmarks import _peers_run as runs
from benchmarks._peers_halving import MARGIN, SEEDS, SETS, dataset, loss_on_test
from benchmarks._peers_statistics import equivalence
from poise.fleet import Fleet
from poise.fleet.compiled import CompiledEngine
from poise.recipe import KNOWN
from poise.train import Plan
from poise.tuning import make_folds

RECIPES = ("batchnorm-2015", "cocktail")


def log_ratios(name: str, seed: int) -> list[float]:
    """Of the test loss with bfloat16 products to that with float32 ones, for each recipe."""
    given = runs.problem(name, seed)
    data, task = dataset(given)
    (fold,) = make_folds(data, task, 1, val_fraction=0.2, seed=seed)
    found = []
    for recipe in RECIPES:
        plan = Plan(recipe, KNOWN[recipe], task, fold.train, fold.val, seed)
        losses = []
        for matmul in ("float32", "bfloat16"):
            (state,) = Fleet([plan], data, engines=[CompiledEngine(matmul=matmul)]).run()
            losses.append(loss_on_test(given, plan, state))
        found.append(math.log(losses[1] / losses[0]))
    return found


def measure_losses(names: Sequence[str] = SETS, seeds: int = SEEDS) -> dict[str, object]:
    """The change of the test loss, relative, over tables, with a verdict."""
    logs: dict[str, list[float]] = {}
    for name in names:
        logs[name] = [ratio for seed in range(seeds) for ratio in log_ratios(name, seed)]
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
