"""Small tables with a signal, for tests of training."""

import numpy as np
import polars as pl

from poise._random import Key
from poise.data import infer_schema, split_rows
from poise.recipe import Recipe
from poise.train import Binary, Dataset, Multiclass, Plan, Regression, Task

TASKS: dict[str, Task] = {"binary": Binary(), "multiclass": Multiclass(3), "regression": Regression()}


def make_dataset(kind: str = "binary", num_rows: int = 90, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_rows, 3))
    group = rng.choice(["a", "b", "c"], num_rows)
    signal = x[:, 0] - 0.5 * x[:, 1] + (group == "a")
    target = {
        "binary": (signal > 0).astype(float),
        "multiclass": np.digitize(signal, [-0.5, 0.8]).astype(float),
        "regression": 100 + 7 * signal,
    }[kind]
    gaps = np.where(rng.random(num_rows) < 0.1, np.nan, x[:, 2])
    table = pl.DataFrame({"x0": x[:, 0], "x1": x[:, 1], "gappy": pl.Series(gaps).fill_nan(None), "group": group})
    return Dataset(table, infer_schema(table), target, np.ones(num_rows))


def make_plan(recipe: Recipe, data: Dataset, kind: str = "binary", **changes: object) -> Plan:
    split = split_rows(data.table.height, key=Key(1), test=0.0, val=0.25)
    return Plan("plan", recipe, TASKS[kind], split.train, split.val, **{"seed": 3, **changes})
