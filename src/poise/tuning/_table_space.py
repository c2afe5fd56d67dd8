"""What is tried on a table: a space of recipes, and known-good ones to begin with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from poise.functional.schedule import FlatCosine
from poise.methods import (
    EMA,
    BatchNorm,
    Dropout,
    EarlyStopping,
    FeatureMask,
    GaussianNoise,
    GradientClip,
    LayerNorm,
    Method,
    WeightDecay,
)
from poise.recipe import AdamW, Budget, Network, Recipe
from poise.tuning._domains import Float, Int, OneOf
from poise.tuning._space import Space

# Early rungs see weights as they will be served, whatever the learning rate still is: the average of the last steps.
_BASE = Recipe(
    methods=(WeightDecay(weight_decay=0.02), GradientClip(max_norm=1.0), EMA(decay=0.99), EarlyStopping(patience=25)),
    optimizer=AdamW(lr=FlatCosine(3e-3), beta2=0.95),
    budget=Budget(batch_size=128),
    network=Network(width=256, depth=3, numeric="quantile", num_bins=16, input_scale=True),
)

TABLE_SPACE = Space(
    _BASE,
    {
        "norm": OneOf(None, LayerNorm(), BatchNorm()),
        "noise": OneOf(None, GaussianNoise(std=0.1), FeatureMask(p=0.1)),
        "dropout": OneOf(None, Dropout(p=0.2), Dropout(p=FlatCosine(0.2))),
        "Dropout.p": Float(0.02, 0.6),
        "GaussianNoise.std": Float(0.02, 0.3, log=True),
        "FeatureMask.p": Float(0.02, 0.3, log=True),
        "WeightDecay.weight_decay": Float(1e-3, 0.5, log=True),
        "optimizer.lr": Float(1e-3, 1e-2, log=True),
        "budget.batch_size": OneOf(128, 256),
        "network.width": OneOf(64, 128, 256),
        "network.depth": Int(2, 3),
        "network.activation": OneOf("relu", "mish", "silu"),
        "network.residual": OneOf(False, True),
        "network.numeric": OneOf("robust", "quantile"),
        "network.num_bins": OneOf(0, 8, 16, 32),
        "network.num_frequencies": OneOf(0, 16),
    },
)
"""Chosen on development tables: all of it is cheap to train and, on some of them, better than what stands beside it."""


def _in_space(*methods: Method, lr: float, decay: float, **network: Any) -> Recipe:
    base = tuple(replace(one, weight_decay=decay) if isinstance(one, WeightDecay) else one for one in _BASE.methods)
    return replace(
        _BASE,
        methods=(*base, *methods),
        optimizer=replace(_BASE.optimizer, lr=FlatCosine(lr)),
        network=replace(_BASE.network, **network),
    )


PORTFOLIO: Mapping[str, Recipe] = {
    "plain": _in_space(
        Dropout(p=FlatCosine(0.15)), lr=3e-3, decay=0.02, numeric="robust", num_bins=0, activation="mish"
    ),
    "residual": _in_space(LayerNorm(), Dropout(p=0.3), lr=1.5e-3, decay=0.05, residual=True, width=128),
    "batch norm": _in_space(BatchNorm(), lr=3e-3, decay=0.05, depth=2),
    "waves": _in_space(
        Dropout(p=FlatCosine(0.15)),
        lr=3e-3, decay=0.02, numeric="robust", num_bins=0, num_frequencies=16, activation="mish",
    ),
    "layer norm": _in_space(LayerNorm(), GaussianNoise(std=0.1), Dropout(p=0.2), lr=3e-3, decay=0.1),
    "strong dropout": _in_space(Dropout(p=0.45), lr=2e-3, decay=0.1, num_bins=8),
    "small": _in_space(FeatureMask(p=0.05), lr=5e-3, decay=0.05, width=64, depth=2, num_bins=8, activation="mish"),
}  # fmt: skip
"""Recipes that a search begins with."""
