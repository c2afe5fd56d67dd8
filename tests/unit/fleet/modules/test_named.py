"""Dropouts of torch become those whose masks have names."""

from __future__ import annotations

import torch
from torch import nn

from poise._random import Key
from poise.fleet.modules._named import name_dropouts, name_streams, stochastic_layers
from poise.nn import AlphaDropout, ChannelDropout, Dropout


def test_each_kind_finds_its_own():
    model = nn.Sequential(
        nn.Dropout(0.1), nn.Dropout1d(0.2), nn.Dropout2d(0.3), nn.Dropout3d(0.4), nn.AlphaDropout(0.05)
    )
    name_dropouts(model)
    assert [type(one) for one in model] == [Dropout, ChannelDropout, ChannelDropout, ChannelDropout, AlphaDropout]
    assert [one.p for one in model] == [0.1, 0.2, 0.3, 0.4, 0.05]


def test_what_may_mean_more_stays():
    hooked = nn.Dropout(0.1)
    hooked.register_forward_hook(lambda *_: None)
    model = nn.Sequential(nn.Dropout(0.1, inplace=True), nn.Dropout(1.0), hooked, nn.FeatureAlphaDropout(0.1))
    before = list(model)
    name_dropouts(model)
    assert list(model) == before


def test_a_layer_in_two_places_stays_one():
    shared = nn.Dropout(0.1).eval()
    model = nn.ModuleDict({"a": nn.Sequential(shared), "b": nn.Sequential(shared)})
    name_dropouts(model)
    assert model["a"][0] is model["b"][0]
    assert not model["a"][0].training


def test_streams_have_the_names_of_places():
    model = nn.Sequential(Dropout(0.5), Dropout(0.5), Dropout(0.5))
    name_streams(model, Key(1), but={"1"})
    assert model[0].key == Key(1).stream("mask", "0")
    assert model[1].key is None
    assert list(stochastic_layers(model)) == ["0", "1", "2"]
    assert not torch.equal(model[0](torch.ones(64)), model[2](torch.ones(64)))
