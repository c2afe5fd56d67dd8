"""A recipe that acts everywhere a callback can, and what it must leave behind."""

import torch

from poise import Recipe
from poise.methods import EMA, L2, BatchNorm, Dropout, GradientClip, MaxNorm, WeightDecay

MAX_NORM = 0.3
RECIPE = Recipe(
    methods=(
        BatchNorm(),
        Dropout(p=0.4),
        L2(strength=0.01),
        WeightDecay(weight_decay=0.1),
        GradientClip(max_norm=1.0),
        MaxNorm(max_norm=MAX_NORM),
        EMA(decay=0.5),
    )
)


def rows(num=64):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num, 4, generator=generator)
    return x, (x[:, 0] > 0).long()


def network():
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))


class Spy:
    """Counts the calls of a regimen, and keeps the weights right after the last step."""

    def __init__(self, monkeypatch):
        from poise.surgery import Regimen

        self.calls = []
        self.gradients_changed = []
        self.last = {}
        for name in ("before_step", "after_step", "finish"):
            monkeypatch.setattr(Regimen, name, self._watched(name, getattr(Regimen, name)))

    def _watched(self, name, inner):
        def watched(regimen, *args, **kwargs):
            before = [one.grad.clone() for one in regimen.model.parameters() if one.grad is not None]
            found = inner(regimen, *args, **kwargs)
            self.calls.append(name)
            if name == "before_step":
                size = sum(one.grad.square().sum() for one in regimen.model.parameters() if one.grad is not None)
                self.gradients_changed.append((len(before), float(size)))
            if name == "after_step":
                self.last = {key: value.clone() for key, value in regimen.model.state_dict().items()}
            return found

        return watched

    def check(self, regimen, network, num_steps, x):
        """Layers are there; decay, clipping and projection acted; the average was written; statistics are exact."""
        kinds = [type(one).__name__ for one in network.modules()]
        assert "BatchNorm" in kinds and "Dropout" in kinds
        assert "Dropout(p=0.4)" in regimen.diff()
        assert self.calls == ["before_step", "after_step"] * num_steps + ["finish"]
        assert regimen.num_steps_done == num_steps
        assert all(count > 0 and size <= 1.0 + 1e-5 for count, size in self.gradients_changed)
        norms = [one.norm(dim=1).max() for name, one in self.last.items() if name in ("0.weight", "2.weight")]
        assert len(norms) == 2
        assert max(norms) <= MAX_NORM + 1e-5
        assert not torch.equal(network.state_dict()["2.weight"], self.last["2.weight"])  # it is the average now
        norm = next(one for one in network.modules() if type(one).__name__ == "BatchNorm")
        with torch.no_grad():
            hidden = torch.nn.functional.linear(x, network[0].weight, network[0].bias)
        assert torch.allclose(norm.running_mean, hidden.mean(0), atol=1e-5)
        assert torch.allclose(norm.running_var, hidden.var(0, correction=0), atol=1e-5)
