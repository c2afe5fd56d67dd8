"""Recipes that are known to be good, each with its source."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from poise._errors import ConfigError
from poise.functional.schedule import Constant, Cosine, CosLog, FlatCosine
from poise.methods import (
    EMA,
    BatchNorm,
    Dropout,
    EarlyStopping,
    GaussianNoise,
    GradientClip,
    LayerNorm,
    MaxNorm,
    WeightDecay,
)
from poise.recipe._recipe import AdamW, Budget, Network, Recipe

_BUDGET = Budget()

KNOWN: Mapping[str, Recipe] = MappingProxyType(
    {
        "bare": Recipe(optimizer=AdamW(lr=Constant(1e-3)), budget=_BUDGET, network=Network(width=256, depth=2)),
        "dropout-2014": Recipe(
            methods=(Dropout(p=0.5, input_p=0.1), MaxNorm(max_norm=3.0), EarlyStopping(patience=25)),
            optimizer=AdamW(lr=Cosine(2e-3)),
            budget=_BUDGET,
            network=Network(width=256, depth=2),
        ),
        "batchnorm-2015": Recipe(
            methods=(BatchNorm(), WeightDecay(weight_decay=0.02), EarlyStopping(patience=25)),
            optimizer=AdamW(lr=Cosine(3e-3)),
            budget=_BUDGET,
            network=Network(width=256, depth=2, numeric="quantile", num_bins=16),
        ),
        "realmlp-like": Recipe(
            methods=(
                GaussianNoise(std=0.1),
                Dropout(p=FlatCosine(0.15)),
                WeightDecay(weight_decay=FlatCosine(0.02)),
                EarlyStopping(patience=40),
            ),
            optimizer=AdamW(lr=CosLog(3e-3), beta2=0.95, bias_lr=0.1),
            budget=_BUDGET,
            network=Network(width=256, depth=3, activation="mish", numeric="quantile", num_bins=16),
        ),
        "cocktail": Recipe(
            methods=(
                LayerNorm(),
                GaussianNoise(std=0.1),
                Dropout(p=0.2),
                WeightDecay(weight_decay=0.1),
                GradientClip(max_norm=1.0),
                EMA(decay=0.99),
                EarlyStopping(patience=25),
            ),
            optimizer=AdamW(lr=Cosine(3e-3)),
            budget=_BUDGET,
            network=Network(width=256, depth=3, numeric="quantile", num_bins=16),
        ),
    }
)
"""Recipes by name. None smooths labels: it costs log loss, and a number has none."""

SOURCES: Mapping[str, str] = MappingProxyType(
    {
        "bare": "no regularization: the network that the others are measured against",
        "dropout-2014": 'dropout and max-norm as in Srivastava et al., "Dropout", JMLR 15, 2014',
        "batchnorm-2015": 'batch normalization, a higher learning rate and no dropout, as in Ioffe and Szegedy, "Batch '
        'normalization", ICML 2015',
        "realmlp-like": 'scheduled dropout, decay and learning rate as in Holzmüller et al., "Better by default", '
        "NeurIPS 2024, with input noise",
        "cocktail": 'one of each family, as in Kadra et al., "Well-tuned simple nets excel on tabular datasets", '
        "NeurIPS 2021",
    }
)
"""Where each known recipe comes from."""


def known(name: str) -> Recipe:
    """The known recipe called `name`.

    Args:
        name: One of `KNOWN`: "bare", "dropout-2014", "batchnorm-2015", "realmlp-like" or "cocktail".

    Raises:
        ConfigError: If there is none of that name.

    Example:
        >>> from poise import known
        >>> [type(method).__name__ for method in known("batchnorm-2015").methods]
        ['BatchNorm', 'WeightDecay', 'EarlyStopping']
    """
    if name not in KNOWN:
        near = difflib.get_close_matches(name, KNOWN, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known are {', '.join(KNOWN)}."
        raise ConfigError(f"There is no known recipe {name!r}.", where="`recipe`", repair=hint)
    return KNOWN[name]
