"""The first call into machine code, on a training that is thrown away."""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl
import torch

from poise.data import Schema
from poise.fleet._start import start_states
from poise.fleet.compiled._training import CompiledTraining, Memory
from poise.recipe import Budget, Network, Recipe
from poise.train import Binary, Dataset, Plan


@cache
def warm_up(dtype: torch.dtype, matmul: str = "float32") -> None:
    """Compile the engine for `dtype`, or load it from the cache on disk: every training takes the same machine code."""
    schema = Schema.from_dict({"columns": [{"name": "x", "kind": "number"}]})
    table = pl.DataFrame({"x": [0.0, 1.0, 2.0, 3.0]})
    data = Dataset(table, schema, np.array([0.0, 1.0, 0.0, 1.0]), np.ones(4))
    recipe = Recipe(budget=Budget(max_epochs=1), network=Network(width=1, depth=1))
    plan = Plan("warm-up", recipe, Binary(), np.arange(4), np.arange(4), dtype=dtype)
    half = matmul == "bfloat16" and dtype == torch.float32
    CompiledTraining(plan, start_states([plan], data)[0], data, Memory(), bfloat16=half).run_epoch()
