"""Variants of many sizes, trained by the compiled engine."""

from dataclasses import replace

import torch

from poise.fleet.compiled import CompiledEngine
from poise.methods import EMA, BatchNorm, Dropout, LayerNorm, Mixup
from poise.recipe import AdamW, Budget, Cosine, Network, Recipe

from ._tables import make_dataset, make_plan

DATA = make_dataset()
BUDGET = Budget(max_epochs=5, batch_size=16)
STEPS = 5  # batches of an epoch
END = 10**6
NORMS = ((BatchNorm(),), (LayerNorm(),), (), (BatchNorm(ghost_size=5),))


def make_variant(index, **changes):
    """Widths, depths, norms and strengths differ, and with them the sizes of all buffers."""
    network = Network(width=5 + 7 * (index % 5), depth=1 + index % 3, residual=index % 2 == 1, num_bins=index % 4)
    methods = (*NORMS[index % 4], Dropout(p=0.1 + 0.05 * (index % 7)), Mixup(alpha=0.3), EMA(decay=0.9))
    recipe = Recipe(methods, AdamW(lr=Cosine(0.01)), BUDGET, network)
    return replace(make_plan(recipe, DATA, **{"seed": index, **changes}), name=f"v{index}")


VARIANTS = [make_variant(index) for index in range(64)]


def go_on(*_):
    return True


def advance(plans, states, *, threads=1, until_epoch=END, on_epoch=go_on):
    CompiledEngine(threads).advance(plans, states, DATA, until_epochs=[until_epoch] * len(plans), on_epoch=on_epoch)
    return states


def train(plans, **options):
    return advance(plans, CompiledEngine().start(plans, DATA), **options)


def same(one, other):
    """Bit for bit, and the same history but for the time it took."""
    tensors = one.tensors.keys() == other.tensors.keys()
    tensors = tensors and all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())
    untimed = [[replace(epoch, seconds=0) for epoch in state.history] for state in (one, other)]
    numbers = [(state.step, state.best_epoch, state.averaging, state.stopped) for state in (one, other)]
    return tensors and untimed[0] == untimed[1] and numbers[0] == numbers[1]


def plan_with(*methods, name="plan", **changes):
    recipe = Recipe(methods, AdamW(lr=Cosine(0.01)), BUDGET, Network(width=8, depth=1))
    return replace(make_plan(recipe, DATA, **changes), name=name)
