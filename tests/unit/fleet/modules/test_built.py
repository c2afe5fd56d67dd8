"""A recipe in a new model, and what a state keeps of it."""

from __future__ import annotations

import json

import torch

from poise._random import Key
from poise.fleet.modules import build
from poise.fleet.modules._named import stochastic_layers
from poise.methods import EMA, BatchNorm, Dropout, DropPath, Mixup
from poise.nn import Dropout as NamedDropout

from ._models import job, recipe


def test_every_random_layer_has_a_stream_of_its_own():
    built = build(job(seed=3), recipe())  # the model's own dropout, which no method places
    layers = stochastic_layers(built.model)
    assert list(layers) == ["2"]
    assert isinstance(built.model[2], NamedDropout)
    assert built.model[2].key == Key(3).stream("mask", "2")
    placed = build(job(seed=3), recipe(Dropout(p=0.3))).model
    assert placed[2].key == Key(3).stream("mask", "2")
    assert placed[2].p == 0.3


def test_methods_without_a_place_are_noted_and_not_warned_of():
    built = build(job(), recipe(DropPath(p=0.1)))
    assert len(built.notes) == 1
    assert "DropPath found no place" in built.notes[0]


def test_tensors_go_there_and_back():
    work, one = job(), recipe(BatchNorm())
    built, other = build(work, one), build(job(seed=1), one)
    other.load(built.tensors())
    assert all(torch.equal(other.tensors()[name], tensor) for name, tensor in built.tensors().items())
    other.load({f"best.{name}": 0 * tensor for name, tensor in built.tensors().items()}, "best.")
    assert all(tensor.abs().max() == 0 for tensor in other.tensors().values() if tensor.numel())


def test_counters_go_through_json():
    work, one = job(), recipe(Dropout(p=0.3), EMA(decay=0.9), Mixup())
    built, other = build(work, one), build(work, one)
    optimizer = torch.optim.Adam(built.regimen.param_groups(lr=0.1))
    for _ in range(3):
        x, y = built.regimen.batch(*work.example)
        work.loss(built.model(x), y).backward()
        built.regimen.step(optimizer)
    averages = built.regimen.state_dict()["averages"][0]["tensors"]
    tensors = {f"average/{name}": tensor for name, tensor in averages.items()}
    other.load_counters(json.loads(json.dumps(built.counters())), tensors)
    assert other.counters() == built.counters()
    assert other.counters()["num_steps_done"] == 3
    assert other.model[2].step == built.model[2].step > 0
    found = other.regimen.state_dict()["averages"][0]["tensors"]
    assert all(torch.equal(found[name], tensor) for name, tensor in averages.items())
