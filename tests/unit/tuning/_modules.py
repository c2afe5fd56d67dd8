"""A small model, its rows, and a space of recipes for it."""

from __future__ import annotations

import torch
from torch import nn

from poise import AdamW, Budget, Cosine, Float, OneOf, Recipe, Space
from poise.fleet.modules import Job, source_of
from poise.methods import BatchNorm, Dropout, LayerNorm, WeightDecay

cross_entropy = nn.functional.cross_entropy


def rows(number, seed, dtype=torch.float32):
    """x (N, 6) and classes that need a product of two features."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(number, 6, generator=generator, dtype=dtype)
    return x, (x[:, 0] * x[:, 1] + x[:, 2] > 0).long()


def mlp():
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 2))


def conv():
    """Reads 6 numbers as a small image."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)
    )


BASE = Recipe(
    methods=(WeightDecay(),), optimizer=AdamW(lr=Cosine(1e-2)), budget=Budget(batch_size=16)
)  # fmt: skip
SPACE = Space(
    BASE,
    {
        "norm": OneOf(None, BatchNorm(), LayerNorm()),
        "dropout": OneOf(None, Dropout()),
        "Dropout.p": Float(0.05, 0.5),
        "optimizer.lr": Float(1e-3, 1e-1, log=True),
    },
)


def job(factory=mlp, *, loss=cross_entropy, max_epochs=4, seed=0):
    return Job(factory, source_of(rows(90, 0), "train"), source_of(rows(200, 1), "val"), loss, max_epochs, seed)


def recipe(*methods, lr=1e-2):
    return Recipe(methods=methods, optimizer=AdamW(lr=Cosine(lr)), budget=Budget(batch_size=16))
