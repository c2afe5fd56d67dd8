"""What is frozen does not move, in training mode either, and thaws as it was."""

import copy

import pytest
import torch
from torch import nn

from poise import freeze
from poise._errors import ConfigError
from poise.nn import BatchNorm, NormActDropout


class Activated(nn.BatchNorm1d):
    """Not exactly torch's layer."""

    def forward(self, x):
        return torch.relu(super().forward(x))


class Net(nn.Module):
    def __init__(self, norm=nn.BatchNorm1d):
        super().__init__()
        self.embed = nn.Embedding(7, 3)
        self.encoder = nn.Sequential(nn.Linear(3, 4), norm(4), nn.Dropout(0.5))
        self.head = nn.Sequential(nn.Linear(4, 4), norm(4), nn.Linear(4, 2))

    def forward(self, x):
        return self.head(self.encoder(self.embed(x)))


X = torch.arange(14) % 7
NORMS = [nn.BatchNorm1d, nn.SyncBatchNorm, Activated, BatchNorm]


def train(model, steps=3):
    """A few steps of an optimizer with momentum and decay, on all parameters; `train` is called before each."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(steps):
        model.train()
        optimizer.zero_grad(set_to_none=False)
        model(X).square().sum().backward()
        optimizer.step()


def moved(model, before):
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, Activated, BatchNorm])
def test_a_frozen_part_does_not_move_and_the_rest_does(norm):
    model = Net(norm)
    train(model)  # leaves gradients and momentum behind
    frozen = freeze(model, "encoder")
    before = copy.deepcopy(model.state_dict())
    train(model)
    names = moved(model, before)
    assert names
    assert not any(name.startswith("encoder") for name in names)
    assert {"head.1.running_mean", "head.1.num_batches_tracked", "head.0.weight", "embed.weight"} <= names
    assert model.encoder[2].training
    assert frozen.parameters == ("encoder.0.weight", "encoder.0.bias", "encoder.1.weight", "encoder.1.bias")
    assert frozen.statistics == ("encoder.1",)


@pytest.mark.parametrize("norm", NORMS)
def test_thawing_restores_flags_and_modes(norm):
    model = Net(norm)
    model.head[0].bias.requires_grad_(requires_grad=False)
    model.head[1].eval()
    flags = {name: one.requires_grad for name, one in model.named_parameters()}
    modes = {name: one.training for name, one in model.named_modules()}
    with freeze(model, ""):
        assert not any(one.requires_grad for one in model.parameters())
        assert not any(one.training for name, one in model.named_modules() if name.endswith(".1"))
    assert flags == {name: one.requires_grad for name, one in model.named_parameters()}
    assert modes == {name: one.training for name, one in model.named_modules()}
    assert not any(one._forward_pre_hooks for one in model.modules())
    before = copy.deepcopy(model.state_dict())
    if norm is not nn.SyncBatchNorm:
        train(model)
        assert "encoder.1.running_mean" in moved(model, before)


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, Activated, BatchNorm])
def test_a_copy_of_a_frozen_model_is_frozen(norm):
    model = Net(norm)
    freeze(model, "norm")
    twin = copy.deepcopy(model)
    before = copy.deepcopy(twin.state_dict())
    train(twin)
    assert not {name for name in moved(twin, before) if ".1." in name}
    assert moved(model, before) == set()


@pytest.mark.parametrize(
    ("what", "parameters", "statistics"),
    [
        ("head.0.bias", {"head.0.bias"}, set()),
        ("*.bias", {"encoder.0.bias", "encoder.1.bias", "head.0.bias", "head.1.bias", "head.2.bias"}, set()),
        ("head.[01]", {"head.0.weight", "head.0.bias", "head.1.weight", "head.1.bias"}, {"head.1"}),
        ("norm", {"encoder.1.weight", "encoder.1.bias", "head.1.weight", "head.1.bias"}, {"encoder.1", "head.1"}),
        (nn.BatchNorm1d, {"encoder.1.weight", "encoder.1.bias", "head.1.weight", "head.1.bias"},
         {"encoder.1", "head.1"}),
        ("bias", {"encoder.0.bias", "head.0.bias", "head.2.bias"}, set()),
        ("embedding", {"embed.weight"}, set()),
        (nn.Embedding, {"embed.weight"}, set()),
        (["embed", "embedding", "head.2"], {"embed.weight", "head.2.weight", "head.2.bias"}, set()),
    ],
)  # fmt: skip
def test_what_can_be_named(what, parameters, statistics):
    model = Net()
    frozen = freeze(model, what)
    assert set(frozen.parameters) == parameters
    assert set(frozen.statistics) == statistics
    assert {name for name, one in model.named_parameters() if not one.requires_grad} == parameters


def test_a_module_and_a_path_that_is_a_role():
    model = Net()
    assert freeze(model, model.head[1]).statistics == ("head.1",)
    named = nn.Sequential()
    named.add_module("norm", nn.Linear(2, 2))
    named.add_module("other", nn.BatchNorm1d(2))
    assert freeze(named, "norm").statistics == ()


@pytest.mark.parametrize(
    ("what", "near"),
    [("encoder.9", "'encoder.2'"), ("haed", "'head'"), ("nrom", "'norm'"), ("x.*.y", "Near: "),
     (nn.Conv2d, "Embedding"), (nn.Linear(1, 1), "Give a module"), (["head", "scale"], "'scale' does not")],
)  # fmt: skip
def test_unknown_names_change_nothing(what, near):
    model = Net()
    with pytest.raises(ConfigError, match=r"`what` must fit something in the model") as caught:
        freeze(model, what)
    assert near in str(caught.value)
    assert all(one.requires_grad for one in model.parameters())


def test_nothing_named():
    with pytest.raises(ConfigError, match="it is empty"):
        freeze(Net(), [])


def test_gradients_pass_through_a_frozen_part():
    model = Net()
    freeze(model, "encoder")
    model.train()(X).sum().backward()
    assert model.embed.weight.grad is not None
    assert model.encoder[0].weight.grad is None


def test_what_was_frozen_can_be_read():
    assert str(freeze(Net(), ["embed", "norm"])).splitlines() == [
        "embed      holds weight    asked for by 'embed'",
        "encoder.1  holds weight, bias    asked for by 'norm'",
        "encoder.1  keeps its statistics: eval mode    asked for by 'norm'",
        "head.1     holds weight, bias    asked for by 'norm'",
        "head.1     keeps its statistics: eval mode    asked for by 'norm'",
    ]


def test_fused_layers_lose_their_dropout_and_say_so():
    model = nn.Sequential(NormActDropout(3, p=0.5))
    frozen = freeze(model, "0")
    assert "without its dropout" in str(frozen)
    x = torch.randn(9, 3)
    assert torch.equal(model.train()(x), model(x))
    assert torch.equal(model[0].running_mean, torch.zeros(3))
