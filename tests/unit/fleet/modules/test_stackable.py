"""What cannot be stacked is found out before, and said."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from poise.fleet.modules import build, why_not, why_not_together
from poise.methods import BatchNorm, Dropout, LabelSmoothing, MaxNorm, Mixup

from ._models import conv, job, mlp, recipe


def reason(factory, one=None, *, sparing=False):
    work, one = job(factory), one or recipe()
    built = build(work, one)
    return why_not(one, built, sparing=sparing) or why_not_together(work, one, built)


class Wrapped(nn.Module):
    """A linear layer, and whatever a test does in `forward`."""

    def __init__(self, act):
        super().__init__()
        self.linear, self.act, self.calls = nn.Linear(6, 2).double(), act, 0

    def forward(self, x):
        return self.act(self, self.linear(x))


def counts(module, x):
    module.calls += module.training
    return x * (1 + module.calls * module.training)


def branches(module, x):
    return x if float(x.detach().sum()) > 0 else 2 * x


def drops(module, x):
    return nn.functional.dropout(x, 0.5, module.training)


def jitters(module, x):
    return x * (1 + random.random()) if module.training else x


def shakes(module, x):
    return x * (1 + np.random.random()) if module.training else x


def lacks_a_rule(module, x):
    return torch._weight_norm_interface(x, x.detach().norm(dim=1, keepdim=True), 0)[0]


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.spare = nn.Linear(6, 2).double(), nn.Linear(2, 2).double()

    def forward(self, x):
        return self.linear(x)


class Recurrent(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.lstm = nn.LSTM(3, 4, 2, batch_first=True, dropout=dropout).double()
        self.head = nn.Linear(4, 2).double()

    def forward(self, x):
        return self.head(self.lstm(x.unflatten(1, (2, 3)))[0][:, -1])


@pytest.mark.parametrize("factory", [mlp, conv])
@pytest.mark.parametrize("methods", [(), (Dropout(p=0.3), LabelSmoothing()), (BatchNorm(), MaxNorm(), Mixup())])
def test_usual_models_can_be_stacked(factory, methods):
    assert reason(factory, recipe(*methods)) == ""


@pytest.mark.parametrize(
    ("factory", "text"),
    [
        (lambda: nn.Sequential(nn.Linear(6, 2), nn.Dropout(0.1, inplace=True)).double(), "random numbers of layer 1"),
        (lambda: Wrapped(counts), "changes what is no tensor"),
        (lambda: Wrapped(jitters), "draws from Python's or NumPy's"),
        (lambda: Wrapped(shakes), "draws from Python's or NumPy's"),
        (lambda: Wrapped(branches), "torch.vmap cannot run it"),
        (lambda: Wrapped(drops), "torch.vmap cannot run it"),
        (lambda: Recurrent(0.1), "layer lstm (LSTM) drops inside"),
        (Unused, "a parameter has no gradient"),
        (lambda: Wrapped(lacks_a_rule), "torch.vmap runs a part of it one model after another"),
    ],
    ids=["in place", "counts", "random", "numpy", "branches", "functional", "lstm", "unused", "no rule"],
)  # fmt: skip
def test_what_cannot_is_told(factory, text):
    assert text in reason(factory)


@pytest.mark.parametrize(("dtype", "text"), [(torch.float32, "float32 and float64"), (torch.bfloat16, "bfloat16")])
def test_dtypes_that_cannot_are_told(dtype, text):
    built = build(job(), recipe())
    (built.model[0] if dtype == torch.float32 else built.model).to(dtype)
    assert text in why_not(recipe(), built, sparing=False)


def test_a_pass_that_gives_other_numbers_is_noticed():
    class Together(nn.Module):
        """Looks at how often it is called as one, which a stack cannot know."""

        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 2).double()

        def forward(self, x):
            weight = self.linear.weight
            is_stacked = torch._C._functorch.is_batchedtensor(weight)
            return self.linear(x) * (3 if is_stacked else 1)

    assert reason(Together) == "a stacked pass gives other numbers"


def test_models_that_refuse_to_be_copied_train_alone():
    class Unique(nn.Linear):
        def __deepcopy__(self, memo):
            raise TypeError("there is only one of me")

    assert "there is only one of me" in reason(lambda: Unique(6, 2).double())


def test_the_trial_draws_nothing_from_the_global_generator():
    def act(module, x):
        return x + torch.randn_like(x) if module.training else x

    torch.rand(1)
    before = torch.get_rng_state()
    assert reason(lambda: Wrapped(act)).startswith("torch.vmap cannot run it")
    assert torch.equal(before, torch.get_rng_state())


def test_convolutions_on_a_cpu_are_stacked_on_request_only():
    assert reason(conv, sparing=True) == "convolutions on a CPU gain nothing by it"
    assert reason(conv, sparing=False) == ""


def test_methods_of_others_are_not_trusted():
    class Mine(MaxNorm):
        pass

    assert reason(mlp, recipe(Mine())) == "method Mine is none of Poise's"


def test_the_trial_leaves_the_model_as_it_was():
    work, one = job(), recipe(Dropout(p=0.3), BatchNorm())
    built = build(work, one)
    before, counters = built.tensors(), built.counters()
    assert why_not_together(work, one, built) == ""
    assert built.counters() == counters
    assert all(torch.equal(before[name], tensor) for name, tensor in built.tensors().items())
    assert all(parameter.grad is None for parameter in built.model.parameters())
