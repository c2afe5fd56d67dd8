"""States on disk, and what is kept of those that go no further."""

from __future__ import annotations

import pytest
import torch

from poise import ResumeError
from poise.fleet.modules import ModuleState
from poise.methods import EMA, Dropout

from ._models import difference, job, recipe, trained_alone


def trained():
    return trained_alone(job(max_epochs=2), recipe(Dropout(p=0.2), EMA(decay=0.9)))


def test_there_and_back(tmp_path):
    state = trained()
    state.save(tmp_path, "trial-00003", {"recipe": "text"})
    found, about = ModuleState.read(tmp_path, "trial-00003")
    assert about == {"recipe": "text"}
    assert difference(state.tensors, found.tensors) == 0
    assert vars(found) | {"tensors": 0} == vars(state) | {"tensors": 0}


def test_nothing_there(tmp_path):
    assert ModuleState.read(tmp_path, "trial-00003") is None


def test_damage_is_noticed(tmp_path):
    state = trained()
    state.save(tmp_path, "one", {})
    (file,) = tmp_path.glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ResumeError, match="does not match its digest"):
        ModuleState.read(tmp_path, "one")


def test_reduced_it_keeps_what_predicts():
    state = trained()
    best = {name: one for name, one in state.tensors.items() if name.startswith("best.")}
    assert state.is_whole
    state.reduce()
    assert not state.is_whole
    assert state.tensors.keys() == best.keys()
    assert state.epoch == 2


def test_a_fresh_one_is_whole():
    assert ModuleState().is_whole
    assert (ModuleState().epoch, ModuleState().stopped) == (0, "")
    assert isinstance(next(iter(trained().tensors.values())), torch.Tensor)
