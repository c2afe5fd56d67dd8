"""Loss and penalty, and models that read what a batch holds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from poise.fleet.modules._objective import Reader, objective, outputs_of, reads_outputs
from poise.methods import L2, LabelSmoothing, WeightDecay
from poise.surgery import weights_of

from ._models import cross_entropy, job, mlp, recipe


class Two(nn.Module):
    def forward(self, left, right=0):
        return left + right


@pytest.mark.parametrize("x", [torch.ones(2), (torch.ones(2),), {"left": torch.ones(2), "right": torch.zeros(2)}])
def test_readers_take_whatever_a_batch_holds(x):
    assert torch.equal(Reader(Two())(x), torch.ones(2))
    assert torch.equal(outputs_of(Two(), (x, torch.zeros(2)))[0], torch.ones(2))


def test_penalties_are_added():
    work, model = job(), mlp()
    x, y = work.example
    model.eval()
    weights = weights_of(model)
    outputs = model(x)
    squares = sum(float(one.tensor.detach().square().sum()) for one in weights.values() if one.role == "kernel")
    found = objective(work, [L2(strength=0.1)], weights, outputs, y, reads=False)
    assert float(found.detach()) == pytest.approx(float(cross_entropy(outputs, y).detach()) + 0.1 * squares)
    smoothed = objective(work, [LabelSmoothing(smoothing=0.2)], weights, outputs, y, reads=True)
    expected = nn.functional.cross_entropy(outputs, y, label_smoothing=0.2)
    assert float(smoothed.detach()) == pytest.approx(float(expected.detach()))
    assert torch.equal(objective(work, [], weights, outputs, y, reads=False), cross_entropy(outputs, y))


def test_who_reads_outputs():
    assert reads_outputs(recipe(LabelSmoothing()))
    assert not reads_outputs(recipe(L2(), WeightDecay()))
