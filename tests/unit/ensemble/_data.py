"""Small tables and quick recipes, for tests of ensembles."""

import numpy as np
import polars as pl

from poise.data import infer_schema
from poise.fleet import Fleet, PlainEngine
from poise.methods import EarlyStopping
from poise.recipe import AdamW, Budget, Network, Recipe
from poise.train import Binary, Dataset, Multiclass, Plan, Predictor, Regression

TASKS = {"binary": Binary(), "multiclass": Multiclass(3), "regression": Regression()}
KINDS = list(TASKS)
NETWORK, ADAM = Network(width=8, depth=1), AdamW(lr=1e-2)
FIXED = Recipe(optimizer=ADAM, budget=Budget(4, 16), network=NETWORK)
STOPPING = Recipe(methods=(EarlyStopping(patience=2),), optimizer=ADAM, budget=Budget(6, 16), network=NETWORK)
PLAIN = [PlainEngine()]


def make_data(kind="binary", num_rows=80, seed=0, noise=0.3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_rows, 2))
    group = rng.choice(["u", "v"], num_rows)
    signal = x[:, 0] - 0.6 * x[:, 1] + (group == "u") + noise * rng.normal(size=num_rows)
    target = {
        "binary": (signal > 0.3).astype(float),
        "multiclass": np.digitize(signal, [-0.3, 0.9]).astype(float),
        "regression": 100 + 7 * signal,
    }[kind]
    table = pl.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": group})
    return Dataset(table, infer_schema(table), target, np.ones(num_rows))


def seen_by(member):
    """Rows that a member has looked at in any way."""
    return set(member.plan.train_rows) | set(member.plan.val_rows)


def predictors(data, kind, rows_of):
    """A network for each set of training rows; the rows from 40 on validate."""
    plans = [Plan(f"m{seed}", FIXED, TASKS[kind], rows, np.arange(40, 60), seed) for seed, rows in enumerate(rows_of)]
    states = Fleet(plans, data).run()
    return [Predictor(plan.recipe, plan.task, state) for plan, state in zip(plans, states, strict=True)]
