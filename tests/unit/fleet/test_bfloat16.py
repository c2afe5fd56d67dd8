"""Matrix products of bfloat16 factors: what is rounded, and that training comes out the same."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from poise import ConfigError
from poise.fleet.compiled import CompiledEngine, _engine
from poise.fleet.compiled._products import forward_product, input_grad_product, weight_grad_product
from poise.fleet.compiled._program import Buffers
from poise.kernels.cpu._jit import HAS_BFLOAT16, entry
from poise.methods import BatchNorm, Dropout
from poise.recipe import Budget, Network, Recipe

from ._tables import make_dataset, make_plan

RECIPE = Recipe(
    methods=(BatchNorm(), Dropout(p=0.2)),
    budget=Budget(max_epochs=30, batch_size=32),
    network=Network(width=33, depth=2),
)


def val_loss(matmul, seed):
    data = make_dataset(num_rows=400)
    plan = make_plan(RECIPE, data, seed=seed)
    engine = CompiledEngine(1, matmul=matmul)
    states = engine.start([plan], data)
    engine.advance([plan], states, data, until_epochs=[30], on_epoch=lambda *_: True)
    return states[0].history[-1].val_loss


def test_a_cpu_without_it_says_so(monkeypatch):
    monkeypatch.setattr(_engine, "HAS_BFLOAT16", False)
    with pytest.raises(ConfigError, match="AVX512_BF16"):
        CompiledEngine(matmul="bfloat16")
    with pytest.raises(ConfigError, match="matmul"):
        CompiledEngine(matmul="float16")


def test_torchs_switch_allows_it(monkeypatch):
    monkeypatch.setattr(_engine, "HAS_BFLOAT16", True)
    before = torch.get_float32_matmul_precision()
    try:
        for precision, matmul in (("highest", "float32"), ("high", "float32"), ("medium", "bfloat16")):
            torch.set_float32_matmul_precision(precision)
            assert CompiledEngine().matmul == matmul
            assert CompiledEngine(matmul="float32").matmul == "float32"
        monkeypatch.setattr(_engine, "HAS_BFLOAT16", False)
        assert CompiledEngine().matmul == "float32"
    finally:
        torch.set_float32_matmul_precision(before)


if HAS_BFLOAT16:  # nothing of it can be compiled elsewhere

    @entry
    def products(buffers, x, w, g, y, dw, dx, rows, width, depth):
        zero = np.int64(0)
        forward_product(buffers, x, w, zero, y, rows, width, depth)
        weight_grad_product(buffers, g, x, dw, zero, depth, rows, width, depth)
        input_grad_product(buffers, g, w, zero, dx, zero, rows, width, depth)

    @pytest.mark.parametrize(
        ("rows", "width", "depth"), [(1, 1, 1), (7, 5, 3), (16, 32, 64), (33, 17, 40), (64, 65, 63)]
    )
    def test_products_are_those_of_rounded_factors(rows, width, depth):
        rng = np.random.default_rng(rows)
        x, w, g = (rng.normal(size=size).astype(np.float32) for size in ((rows, depth), (width, depth), (rows, width)))
        y, dw, dx = (np.empty(size, np.float32) for size in ((rows, width), (width, depth), (rows, depth)))
        pairs, turned = np.empty(80 * 80, np.uint32), np.empty(80 * 80, np.float32)
        empty = dict.fromkeys(Buffers._fields, np.empty(0, np.float32))
        buffers = Buffers(**{**empty, "left": pairs, "right": pairs.copy(), "transposed": turned})
        products(buffers, *(one.reshape(-1) for one in (x, w, g, y, dw, dx)), rows, width, depth)
        a, b, c = (torch.from_numpy(one).bfloat16().double() for one in (x, w, g))
        for found, wanted in ((y, a @ b.T), (dw, c.T @ a), (dx, c @ b)):
            assert np.allclose(found, wanted.numpy(), rtol=1e-5, atol=1e-5)

    def test_training_comes_out_the_same():
        changes = np.array([val_loss("bfloat16", seed) - val_loss("float32", seed) for seed in range(4)])
        losses = np.array([val_loss("float32", seed) for seed in range(4)])
        assert np.any(changes != 0)
        assert abs(changes.mean()) < 0.1 * losses.std() + 0.02

    def test_float64_plans_stay_exact():
        data = make_dataset()
        plan = make_plan(replace(RECIPE, budget=Budget(max_epochs=2, batch_size=32)), data, dtype=torch.float64)
        weights = []
        for matmul in ("float32", "bfloat16"):
            engine = CompiledEngine(1, matmul=matmul)
            states = engine.start([plan], data)
            engine.advance([plan], states, data, until_epochs=[2], on_epoch=lambda *_: True)
            weights.append(states[0].tensors["weights"])
        assert torch.equal(*weights)
