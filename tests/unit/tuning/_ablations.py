"""Small tables, recipes and results for ablations."""

import numpy as np
import polars as pl

from poise import Budget, Network, Recipe, known, to_toml
from poise.methods import Dropout, WeightDecay
from poise.tuning import AblationResult, Effect, Estimate
from poise.tuning._ablation_result import Arm, Run

TINY = Recipe(
    (Dropout(p=0.2), WeightDecay(weight_decay=0.05)),
    known("bare").optimizer,
    Budget(max_epochs=3, batch_size=16),
    Network(width=8, depth=1),
)


def make_table(num_rows=120, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_rows, 3))
    y = x[:, 0] + 0.1 * rng.normal(size=num_rows)
    labels = np.where(y > 0, "yes", "no")
    return pl.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "y": y, "label": labels})


def make_run(arm, block, test_loss, **changes):
    plain = {
        "train_loss": 0.1,
        "val_loss": 0.5,
        "epochs": 10,
        "max_epochs": 20,
        "steps_an_epoch": 4,
        "seconds": 1.0,
        "reached_epoch": None,
        "reached_seconds": None,
        "stopped": "early",
    }
    return Run(arm=arm, block=block, test_loss=test_loss, **{**plain, **changes})


def make_effect(name, verdict, value=0.0, half=0.01, **changes):
    plain = {
        "kind": "ingredient",
        "level": 0.0125,
        "num_blocks": 10,
        "gap": Estimate(-0.02, -0.05, 0.01),
        "steps": Estimate(0.8, 0.6, 1.1),
        "seconds": Estimate(1.2, 0.9, 1.6),
        "reached_with": 9,
        "reached_without": 10,
    }
    return Effect(name, verdict=verdict, loss=Estimate(value, value - half, value + half), **{**plain, **changes})


def make_result(**changes):
    effects = (
        make_effect("whole recipe", "helps", -0.05, kind="recipe", level=0.05),
        make_effect("Dropout", "helps", -0.04),
        make_effect("WeightDecay", "hurts", 0.03),
        make_effect("EMA", "no effect", 0.0005, half=0.004),
        make_effect("optimizer.lr", "cannot tell", -0.01, half=0.04, steps=None, seconds=None),
        make_effect("Dropout × WeightDecay", "cannot tell", 0.01, half=0.02, kind="pair", steps=None, seconds=None),
    )
    plain = {
        "source": "churn.csv",
        "target": "churn",
        "task": "binary",
        "loss_name": "log loss",
        "design": "pairs",
        "num_rows": 400,
        "num_blocks": 10,
        "margin": 0.0069,
        "effects": effects,
        "arms": (
            Arm("all", 10, 0, 0.4, 0.5, 12.5, to_toml(TINY)),
            Arm("none", 10, 10, None, None, 3.0, to_toml(known("bare"))),
        ),
        "runs": (make_run("all", 0, 0.5), make_run("none", 0, None, train_loss=None, val_loss=None)),
        "ended": "blocks",
        "verdict": "Dropout (-0.0400) lowers the test log loss.",
        "seconds": 15.6,
        "run_folder": "ablation",
        "warnings": ("10 of 10 trainings of 'none' ended without a finite loss and do not count.",),
        "environment": {"python": "3.11.7", "seed": "0"},
    }
    return AblationResult(**{**plain, **changes})
