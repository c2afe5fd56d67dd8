"""What is written down after an epoch."""

from __future__ import annotations

import math

import pytest

from poise.fleet.modules import ModuleState, build
from poise.fleet.modules._record import mean_of, record_epoch
from poise.methods import EarlyStopping

from ._models import job, recipe


def record(state, losses, *, methods=(), max_epochs=9):
    built = build(job(), recipe(*methods))
    for loss in losses:
        record_epoch(
            state, built, [loss], loss, max_epochs=max_epochs, tensors={"weights/a": loss},
            serving=lambda loss=loss: {"weights/a": loss}, counters={"epoch": loss}, engine="plain", seconds=0.5,
        )  # fmt: skip
    return state


def test_means_are_over_rows():
    assert mean_of([1.0, 4.0], [2, 1]) == 2.0


def test_the_best_epoch_is_kept_and_the_earlier_of_two():
    state = record(ModuleState(), [0.5, 0.3, 0.3, 0.4])
    assert state.val_losses == [0.5, 0.3, 0.3, 0.4]
    assert (state.best_epoch, state.best_parts) == (2, [0.3])
    assert state.tensors == {"weights/a": 0.4, "best.weights/a": 0.3}
    assert state.counters == {"epoch": 0.4}
    assert (state.seconds, state.engines, state.stopped) == (2.0, ["plain"], "")


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_ends_it_and_leaves_the_rest(loss):
    state = record(ModuleState(), [0.5, loss])
    assert (state.stopped, state.val_losses, state.best_epoch) == ("non-finite", [0.5], 1)
    assert state.tensors == {"weights/a": 0.5, "best.weights/a": 0.5}


def test_the_budget_ends_it():
    assert record(ModuleState(), [0.5, 0.4], max_epochs=2).stopped == "budget"


def test_the_recipe_ends_it():
    assert record(ModuleState(), [0.5, 0.6], methods=(EarlyStopping(patience=1),)).stopped == "early"
