"""Rank-one members: each is the layer whose weights have its factors, in any model."""

import copy

import pytest
import torch
from torch import nn

from poise._errors import ConfigError
from poise._random import Key
from poise.nn import Linear as NamedLinear
from poise.nn import RankOneConv2d, RankOneLinear, share_members
from poise.surgery import weights_of

K = 3


def randn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(6, 4), (6, 5, 4)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_each_member_is_a_linear_layer(shape, bias):
    layer = RankOneLinear(4, 2, K, bias=bias, key=Key(0)).double()
    x = randn(*shape)
    found = layer(x)
    for row in range(6):
        k = row % K
        weight = layer.weight * torch.outer(layer.out_scale[k], layer.in_scale[k])
        own = None if layer.bias is None else layer.bias[k]
        torch.testing.assert_close(found[row], nn.functional.linear(x[row], weight, own))


def test_each_member_is_a_convolution():
    base = nn.Conv2d(4, 2, 3, padding=1, stride=2)
    layer = RankOneConv2d(base, K, key=Key(0)).double()
    x = randn(6, 4, 5, 5)
    found = layer(x)
    for row in range(6):
        k = row % K
        weight = base.weight.double() * torch.outer(layer.out_scale[k], layer.in_scale[k])[:, :, None, None]
        expected = nn.functional.conv2d(x[row : row + 1], weight, layer.bias[k], stride=2, padding=1)
        torch.testing.assert_close(found[row : row + 1], expected)


class Branching(nn.Module):
    """A convolution, a normalization that is shared, a skip connection and two outputs."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.head, self.other = nn.Linear(3, 2), NamedLinear(3, 1, key=Key(0))

    def forward(self, x, *, scale):
        y = torch.relu(self.norm(self.conv(x))).mean(dim=(2, 3)) * scale
        return {"head": self.head(y), "other": self.other(y)}


def test_any_model_gets_members_and_stays_as_it_is():
    model = Branching()
    before = copy.deepcopy(model.state_dict())
    members = share_members(model, K, spread=0.0, key=Key(0))
    x = randn(5, 2, 4, 4).float()
    found, expected = members.eval()(x, scale=2.0), model.eval()(x, scale=2.0)
    assert {name: tuple(one.shape) for name, one in found.items()} == {"head": (5, K, 2), "other": (5, K, 1)}
    for name, one in found.items():  # members without spread are copies of the model
        torch.testing.assert_close(one, expected[name].unsqueeze(1).expand_as(one))
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())


def test_members_differ_and_repeat_with_their_key():
    model, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), randn(5, 4).float()
    one, same, other = (share_members(model, K, key=Key(seed))(x) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert len({tuple(row) for row in one[0].tolist()}) == K


def test_the_mean_of_the_losses_trains_every_member():
    members = share_members(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)), K, key=Key(0))
    x = randn(64, 4).float()
    y = x[:, :1] - x[:, 1:2]
    optimizer = torch.optim.Adam(members.parameters(), lr=0.02)

    def losses():
        return (members(x) - y.unsqueeze(1)).square().mean(dim=(0, 2))

    before = losses().detach()
    for _ in range(100):
        optimizer.zero_grad()
        losses().mean().backward()
        optimizer.step()
    assert (losses() < 0.2 * before).all()


def test_vectors_of_members_are_no_kernels_that_decay():
    layer = RankOneLinear(4, 2, K)
    roles = {name: one.role for name, one in weights_of(layer).items()}
    assert roles == {"weight": "kernel", "in_scale": "scale", "out_scale": "scale", "bias": "bias"}


def test_what_cannot_be_shared_is_refused_by_name():
    with pytest.raises(ConfigError, match="no Linear or Conv2d"):
        share_members(nn.Sequential(nn.ReLU()), K)
    for settings in ({"num_members": 0}, {"num_members": 2, "spread": -1.0}):
        name = list(settings)[-1]
        with pytest.raises(ConfigError, match=f"`{name}` must be"):
            share_members(nn.Linear(2, 2), **settings)


def test_global_random_numbers_are_untouched_when_a_key_is_given():
    state = torch.random.get_rng_state()
    RankOneLinear(4, 2, K, key=Key(0))
    assert torch.equal(state, torch.random.get_rng_state())
