"""Parameter groups by role."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import poise
from poise import ConfigError


def network():
    return nn.Sequential(
        nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 6, bias=False), nn.BatchNorm1d(6), nn.PReLU(), nn.Linear(6, 2)
    )


IDS = torch.zeros(3, 2, dtype=torch.int64)


def test_every_parameter_is_in_the_group_of_its_role():
    model = network()
    model[5].bias.requires_grad_(False)
    groups = poise.decay_groups(model, 0.1, weight_decay=0.5, roles=("kernel", "embedding"))
    roles = {group["role"]: (len(group["params"]), group["weight_decay"]) for group in groups}
    assert roles == {"kernel": (2, 0.5), "norm": (2, 0.0), "embedding": (1, 0.5), "scale": (1, 0.0)}
    held = [id(one) for group in groups for one in group["params"]]
    assert sorted(held) == sorted(id(one) for one in model.parameters() if one.requires_grad)


def test_shared_parameters_are_held_once():
    embedding, head = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
    head.weight = embedding.weight
    groups = poise.decay_groups(nn.Sequential(embedding, head), 0.1)
    assert [(group["role"], len(group["params"])) for group in groups] == [("embedding", 1)]


def test_of_a_weight_normalized_kernel_the_length_decays():
    model = parametrizations.weight_norm(nn.Linear(4, 3))
    groups = {group["role"]: group["params"] for group in poise.decay_groups(model, 0.1)}
    assert groups["kernel"][0] is model.parametrizations.weight.original0
    assert groups["scale"][0] is model.parametrizations.weight.original1


def test_an_optimizer_keeps_its_state_and_settings():
    model, x = network(), torch.randint(5, (6, 2))
    optimizer = torch.optim.AdamW(
        [{"params": model[:3].parameters(), "lr": 0.1, "betas": (0.5, 0.9)}, {"params": model[3:5].parameters()}],
        lr=0.2,
    )
    model(x).square().sum().backward()
    optimizer.step()
    states = {one: id(optimizer.state[one]["exp_avg"]) for one in optimizer.state}
    groups = poise.decay_groups(model, optimizer, weight_decay=0.3)
    assert groups.groups == optimizer.param_groups
    assert {one: id(optimizer.state[one]["exp_avg"]) for one in optimizer.state} == states
    found = {(group["role"], group["lr"]): (group["weight_decay"], group["betas"]) for group in optimizer.param_groups}
    assert found[("kernel", 0.1)] == (0.3, (0.5, 0.9))
    assert found[("embedding", 0.1)] == (0.0, (0.5, 0.9))
    assert found[("norm", 0.2)] == (0.0, (0.9, 0.999))
    assert found[("kernel", 0.2)][0] == 0.3  # it was missing
    held = [id(one) for group in optimizer.param_groups for one in group["params"]]
    assert sorted(held) == sorted(map(id, model.parameters()))
    optimizer.step()


def test_parameters_of_others_stay_in_the_optimizer():
    model, other = nn.Linear(2, 2), nn.Linear(3, 3)
    optimizer = torch.optim.SGD([*model.parameters(), *other.parameters()], lr=0.1, weight_decay=0.7)
    groups = poise.decay_groups(model, optimizer, weight_decay=0.3)
    rest = next(group for group in groups if group["role"] == "")
    assert [id(one) for one in rest["params"]] == [id(one) for one in other.parameters()]
    assert rest["weight_decay"] == 0.7


def test_named_parameters():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.named_parameters())
    poise.decay_groups(model, optimizer)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    torch.optim.AdamW(poise.decay_groups(model, 0.1)).load_state_dict(optimizer.state_dict())


def test_the_table_says_what_decay_leaves():
    groups = poise.decay_groups(network(), 1e-2, weight_decay=0.1, num_steps=500)
    assert groups.shrink("kernel") == pytest.approx(math.exp(-0.5))
    assert groups.shrink("norm") == 1.0
    assert "0.6065" in str(groups)
    assert poise.decay_groups(network(), 1e-2).shrink("kernel") is None
    assert "num_steps=" in str(poise.decay_groups(network(), 1e-2))


def test_kernels_that_only_a_batch_norm_sees():
    model = network()
    groups = poise.decay_groups(model, 0.1, example=IDS)
    (found,) = groups.invariant
    square = float(model[2].weight.detach().double().square().sum())
    assert (found.name, found.square_norm) == ("2.weight", pytest.approx(square))
    assert found.effective_lr == pytest.approx(0.1 / square)
    assert "2.weight: only its direction counts" in str(groups)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight_decay": -1.0}, "`weight_decay`"),
        ({"roles": ("kernels",)}, "`roles`"),
        ({"roles": ["kernel"]}, "`roles`"),
        ({"num_steps": 0}, "`num_steps`"),
        ({"optimizer_or_lr": "fast"}, "`optimizer_or_lr`"),
        ({"model": nn.Linear(2, 2).requires_grad_(False)}, "no parameter"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        poise.decay_groups(**{"model": nn.Linear(2, 2), "optimizer_or_lr": 0.1, **settings})
