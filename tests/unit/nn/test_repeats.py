"""Passes that gradient checkpointing repeats are known by torch's generator."""

from __future__ import annotations

import torch

from poise.nn import _repeats
from poise.nn._repeats import Repeats


def test_ordinary_passes_are_new_and_draw_nothing():
    repeats, before = Repeats(), torch.get_rng_state()
    assert [repeats.step_of_pass(step) for step in range(3)] == [0, 1, 2]
    assert torch.get_rng_state().equal(before)


@torch.no_grad()
def test_a_pass_with_the_same_generator_is_a_repetition():
    repeats, before = Repeats(), torch.get_rng_state()
    assert [repeats.step_of_pass(step) for step in range(3)] == [0, 1, 2]
    torch.set_rng_state(before)
    assert [repeats.step_of_pass(3) for _ in range(3)] == [0, 1, 2]
    assert repeats.step_of_pass(3) == 3


@torch.no_grad()
def test_old_passes_are_forgotten(monkeypatch):
    monkeypatch.setattr(_repeats, "_REMEMBERED", 2)
    repeats, before = Repeats(), torch.get_rng_state()
    assert [repeats.step_of_pass(step) for step in range(3)] == [0, 1, 2]
    torch.set_rng_state(before)
    assert [repeats.step_of_pass(3 + number) for number in range(2)] == [3, 4]
