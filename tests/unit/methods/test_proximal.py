"""L1 and GroupLasso take the step that minimizes ||w - v||² / 2 + lr · penalty(w): checked by trying other weights."""

import math

import pytest
import torch

from poise.methods import L1, GroupLasso, Weight

LR = 0.5


def randn(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def absolute(w):
    return w.abs().sum()


def grouped(w):
    """Σ over inputs d of sqrt(number of weights) · norm of all the weights that leave d."""
    return sum(math.sqrt(w[:, d].numel()) * w[:, d].norm() for d in range(w.shape[1]))


@pytest.mark.parametrize(("kind", "penalty"), [(L1, absolute), (GroupLasso, grouped)])
@pytest.mark.parametrize("shape", [(3, 5), (5, 2), (1, 4), (2, 3, 4)])
@pytest.mark.parametrize("strength", [0.3, 1.0, 1.7])
def test_no_other_weights_are_better(kind, penalty, shape, strength):
    start = randn(*shape, seed=1)
    start[:, 0] *= 0.1
    found = start.clone()
    kind(strength=strength).update({"w": Weight(found, "kernel")}, lr=LR)

    def objective(w):
        return (w - start).square().sum() / 2 + LR * strength * penalty(w)

    best = objective(found)
    assert best < objective(start)
    for seed in range(200):
        for scale in (1e-4, 1e-2, 1.0):
            assert objective(found + scale * randn(*shape, seed=seed)) > best
    for factor in (0.0, 0.9, 0.999, 1.001, 1.1):
        assert objective(factor * found) >= best


@pytest.mark.parametrize("kind", [L1, GroupLasso])
def test_zeros_are_exact_and_views_of_a_vector_are_changed_in_place(kind):
    vector = randn(20, seed=2)
    before = vector.clone()
    weights = {
        "first": Weight(vector[:6].view(2, 3), "kernel"),
        "bias": Weight(vector[6:8], "bias"),
        "norm": Weight(vector[8:10], "norm"),
        "second": Weight(vector[10:].view(5, 2), "kernel"),
    }
    kind(strength=1e6).update(weights, lr=LR)
    assert not vector[:6].any()
    assert not vector[10:].any()
    assert torch.equal(vector[6:10], before[6:10])
