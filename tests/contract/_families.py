"""Hand-made families of methods with settings other than the defaults, and a small training for each."""

import numpy as np
import polars as pl
import torch

from poise.data import infer_schema
from poise.fleet import PlainEngine
from poise.methods import (
    EMA,
    L1,
    L2,
    METHODS,
    SWA,
    AlphaDropout,
    BatchNorm,
    Dropout,
    DropPath,
    EarlyStopping,
    FeatureMask,
    GaussianNoise,
    GradientClip,
    GroupLasso,
    LabelSmoothing,
    LayerNorm,
    MaxNorm,
    Method,
    Mixup,
    WeightDecay,
)
from poise.recipe import Budget, Cosine, CosLog, EarlyOnly, FlatCosine, LateOnly, Linear, Network, Recipe
from poise.train import Dataset, Multiclass, Plan, State

FAMILIES: dict[str, tuple[Method, ...]] = {
    "BatchNorm": (BatchNorm(momentum=0.3, eps=1e-3), BatchNorm(affine=False), BatchNorm(ghost_size=8)),
    "LayerNorm": (LayerNorm(eps=1e-3), LayerNorm(affine=False)),
    "Dropout": (Dropout(p=0.3), Dropout(p=Linear(0.0, end=0.4), input_p=0.1), Dropout(p=0.2, where="all")),
    "AlphaDropout": (AlphaDropout(p=0.2), AlphaDropout(p=LateOnly(0.2, since=0.5))),
    "DropPath": (DropPath(p=0.4), DropPath(p=Linear(0.1, end=0.3))),
    "GaussianNoise": (GaussianNoise(std=0.3), GaussianNoise(std=EarlyOnly(0.3, until=0.6))),
    "L2": (L2(strength=0.01), L2(strength=Cosine(0.01, warmup=0.2))),
    "LabelSmoothing": (LabelSmoothing(smoothing=0.2), LabelSmoothing(smoothing=FlatCosine(0.2))),
    "Mixup": (Mixup(alpha=0.7), Mixup(alpha=Linear(0.0, end=1.0))),
    "FeatureMask": (FeatureMask(p=0.25), FeatureMask(p=CosLog(0.3, cycles=2))),
    "L1": (L1(strength=0.02), L1(strength=Linear(0.0, end=0.1))),
    "GroupLasso": (GroupLasso(strength=0.02), GroupLasso(strength=EarlyOnly(0.1))),
    "WeightDecay": (
        WeightDecay(weight_decay=0.3),
        WeightDecay(weight_decay=FlatCosine(0.02), roles=("kernel", "embedding")),
    ),
    "MaxNorm": (MaxNorm(max_norm=0.3), MaxNorm(max_norm=Linear(0.5, end=0.2))),
    "GradientClip": (GradientClip(max_norm=0.05), GradientClip(max_norm=Cosine(1.0, end=0.1))),
    "EMA": (EMA(decay=0.9), EMA(decay=Linear(0.5, end=0.99))),
    "SWA": (SWA(swa_start=0.0), SWA(swa_start=0.4)),
    "EarlyStopping": (EarlyStopping(patience=1, min_delta=0.01), EarlyStopping(patience=3)),
}
ALL = [(name, method) for name, family in FAMILIES.items() for method in (METHODS[name](), *family)]
ENGINE = PlainEngine()


def make_dataset() -> Dataset:
    rng = np.random.default_rng(0)
    x, group = rng.normal(size=(64, 3)), rng.choice(["a", "b", "c"], 64)
    target = np.digitize(x[:, 0] - 0.5 * x[:, 1] + (group == "a"), [-0.5, 0.8]).astype(float)
    table = pl.DataFrame({"x0": x[:, 0], "x1": x[:, 1], "x2": x[:, 2], "group": group})
    return Dataset(table, infer_schema(table), target, np.ones(64))


DATA = make_dataset()


def plan_with(*methods: Method, max_epochs: int = 2) -> Plan:
    """Residual for stochastic depth, SELU for alpha dropout: every method finds its site."""
    network = Network(width=8, depth=2, activation="selu", residual=True)
    recipe = Recipe(methods=methods, budget=Budget(max_epochs=max_epochs, batch_size=16), network=network)
    rows = np.arange(64)
    return Plan("plan", recipe, Multiclass(3), rows[:48], rows[48:], seed=3, dtype=torch.float32)


def train(plan: Plan) -> State:
    states = ENGINE.start([plan], DATA)
    ENGINE.advance([plan], states, DATA, until_epochs=[10**6], on_epoch=lambda *_: True)
    return states[0]
