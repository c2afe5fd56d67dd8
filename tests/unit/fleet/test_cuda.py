"""The stacked engine on a GPU, where there is one, beside itself on the CPU."""

import warnings

import pytest
import torch

from poise._errors import PoiseWarning
from poise.fleet.stacked import StackedEngine
from poise.methods import EMA, L2, BatchNorm, Dropout, GaussianNoise, LayerNorm, MaxNorm, Mixup, WeightDecay
from poise.recipe import AdamW, Budget, CosLog, Network, Recipe

from ._tables import make_dataset, make_plan

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
DATA = make_dataset()
SETS = {
    "batch": (BatchNorm(), Dropout(p=0.2, where="all"), WeightDecay(weight_decay=0.1), EMA(decay=0.9)),
    "layer": (LayerNorm(), Dropout(p=0.3), L2(strength=1e-3), MaxNorm(max_norm=2.0)),
    "noise": (GaussianNoise(std=0.1), Dropout(p=0.1)),
    "batches": (BatchNorm(), Mixup(alpha=0.3)),
}
# More batches than a pass is run before it is recorded, so that graphs are replayed too.
EPOCHS = 30


def plans(methods, dtype=torch.float64, epochs=EPOCHS):
    recipe = Recipe(
        methods,
        optimizer=AdamW(lr=CosLog(1e-2)),
        budget=Budget(max_epochs=epochs, batch_size=16),
        network=Network(width=7, depth=2, activation="gelu", num_bins=3),
    )
    return [make_plan(recipe, DATA, "binary", seed=seed, dtype=dtype) for seed in range(3)]


def train(engine, plans, states=None, until_epoch=10**6):
    states = engine.start(plans, DATA) if states is None else states
    engine.advance(plans, states, DATA, until_epochs=[until_epoch] * len(plans), on_epoch=lambda *_: True)
    return states


@pytest.mark.parametrize("name", SETS)
def test_a_gpu_trains_what_the_cpu_trains(name):
    # Exponentials and sums differ in the last bit, and thirty epochs of AdamW spread that; ten digits stay at first.
    given = plans(SETS[name], epochs=8)
    for here, there in zip(train(StackedEngine(3), given), train(StackedEngine(3, device="cuda"), given), strict=True):
        for tensor in ("weights", "average", "statistics", "served"):
            torch.testing.assert_close(here.tensors[tensor], there.tensors[tensor], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_become_one_graph_and_repeat_to_the_bit(name, dtype):
    given = plans(SETS[name], dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error", PoiseWarning)
        whole = train(StackedEngine(3, device="cuda"), given)
    again = train(StackedEngine(3, device="cuda"), given)
    for one, other in zip(whole, again, strict=True):
        assert all(torch.equal(tensor, other.tensors[key]) for key, tensor in one.tensors.items())
        assert all(bool(tensor.isfinite().all()) for tensor in one.tensors.values())


def test_a_run_in_parts_has_the_bits_of_one_in_one_go():
    given = plans(SETS["batch"])
    whole = train(StackedEngine(3, device="cuda"), given)
    parts = train(StackedEngine(3, device="cuda"), given, until_epoch=11)
    parts = train(StackedEngine(3, device="cuda"), given, parts)
    for one, other in zip(whole, parts, strict=True):
        assert all(torch.equal(tensor, other.tensors[key]) for key, tensor in one.tensors.items())
