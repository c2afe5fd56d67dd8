"""The same training on the plain and on the compiled engine, and how far apart they end."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import torch

from poise.data import infer_schema
from poise.fleet import Engine, PlainEngine
from poise.fleet.compiled import CompiledEngine
from poise.methods import AlphaDropout, DropPath, Method
from poise.recipe import AdamW, Budget, Constant, Cosine, Network, Recipe
from poise.train import Binary, Dataset, Multiclass, Plan, Regression, State

PLAIN, COMPILED = PlainEngine(), CompiledEngine(1)
TASKS = {"binary": Binary(), "multiclass": Multiclass(3), "regression": Regression()}
BUDGET = Budget(max_epochs=20, batch_size=16)  # five batches an epoch: 100 steps
ADAM = AdamW(lr=Cosine(0.01))
# Without moments and with a large eps, a step is lr · g / (|g| + eps): plain descent at a rate of lr / eps.
SGD = AdamW(lr=Constant(20.0), beta1=0.0, beta2=0.0, eps=1000.0)
NETWORK = Network(width=9, depth=2)
STREAM = Network(width=9, depth=2, residual=True, activation="selu")  # where every method finds its site
EXACT = 1e-9
VECTORS = ("weights", "exp_avg", "exp_avg_sq", "average", "statistics", "served", "served_statistics")
SCORES = ("lr", "train_loss", "val_loss", "train_score", "val_score")


def make_data(kind: str = "binary", num_rows: int = 90, columns: Sequence[str] = (), weighted: bool = False) -> Dataset:
    """Numbers with and without gaps, and a category; `columns` chooses some of them."""
    rng = np.random.default_rng(7)
    x, group, other = (
        rng.normal(size=(num_rows, 3)),
        rng.choice(["a", "b", "c"], num_rows),
        rng.integers(0, 9, num_rows),
    )
    signal = x[:, 0] - 0.5 * x[:, 1] + (group == "a") + rng.normal(0, 0.3, num_rows)
    target = {
        "binary": (signal > 0.2).astype(float),
        "multiclass": np.digitize(signal, [-0.5, 0.8]).astype(float),
        "regression": 100 + 7 * signal,
    }[kind]
    gaps = pl.Series(np.where(rng.random(num_rows) < 0.1, np.nan, x[:, 2])).fill_nan(None)
    table = pl.DataFrame(
        {"x0": x[:, 0], "x1": x[:, 1], "gappy": gaps, "group": group, "other": [f"k{n}" for n in other]}
    )
    table = table.select(list(columns) or table.columns)
    weight = (
        np.where(rng.random(num_rows) < 0.1, 0.0, rng.uniform(0.2, 3.0, num_rows)) if weighted else np.ones(num_rows)
    )
    return Dataset(table, infer_schema(table), target, weight)


DATA = {kind: make_data(kind) for kind in TASKS}


def make_plan(recipe: Recipe, kind: str, data: Dataset, dtype: torch.dtype, num_train: int = 67) -> Plan:
    rows = np.arange(len(data.target))
    return Plan("plan", recipe, TASKS[kind], rows[:num_train], rows[num_train:], seed=3, dtype=dtype)


def train(engine: Engine, plan: Plan, data: Dataset) -> State:
    assert engine.why_not(plan) == ""
    states = engine.start([plan], data)
    engine.advance([plan], states, data, until_epochs=[10**6], on_epoch=lambda *_: True)
    return states[0]


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference over the largest value."""
    if not expected.numel():
        return 0.0
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-300))


def distances(one: State, other: State) -> dict[str, float]:
    found = {name: distance(one.tensors[name], other.tensors[name]) for name in VECTORS}
    for name in SCORES:
        values = [[getattr(epoch, name) for epoch in state.history] for state in (one, other)]
        found[name] = distance(*(torch.tensor(value, dtype=torch.float64) for value in values))
    return found


def assert_same_course(one: State, other: State) -> None:
    for name in ("stopped", "best_epoch", "step", "averaging", "epoch"):
        assert getattr(one, name) == getattr(other, name), name


def assert_same(recipe: Recipe, kind: str = "binary", data: Dataset | None = None, num_train: int = 67) -> State:
    """Both engines agree in float64; returns what the compiled one made."""
    data = DATA[kind] if data is None else data
    plan = make_plan(recipe, kind, data, torch.float64, num_train)
    expected, found = train(PLAIN, plan, data), train(COMPILED, plan, data)
    assert_same_course(found, expected)
    assert all(torch.isfinite(found.tensors[name]).all() for name in VECTORS)
    apart = {name: value for name, value in distances(found, expected).items() if not value <= EXACT}
    assert not apart
    return found


def recipe_of(*methods: Method, network: Network | None = None, optimizer: AdamW = ADAM, budget: Budget = BUDGET):
    wants_stream = any(isinstance(method, AlphaDropout | DropPath) for method in methods)
    return Recipe(methods, optimizer, budget, network or (STREAM if wants_stream else NETWORK))
