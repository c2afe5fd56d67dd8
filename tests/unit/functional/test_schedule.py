"""Schedules: their formulas at hand-picked points, their range, and what they refuse."""

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from poise._errors import ConfigError
from poise.functional.schedule import (
    Constant,
    Cosine,
    CosineCycles,
    CosLog,
    EarlyOnly,
    FlatCosine,
    LateOnly,
    Linear,
    Schedule,
    value_at,
)

POINTS = [
    (Constant(0.5), {0: 0.5, 0.7: 0.5, 1: 0.5}),
    (Linear(1.0, end=3.0), {0: 1, 0.25: 1.5, 1: 3}),
    (Cosine(2.0), {0: 2, 1 / 3: 1.5, 0.5: 1, 1: 0}),
    (Cosine(2.0, end=1.0), {0: 2, 0.5: 1.5, 1: 1}),
    (Cosine(2.0, warmup=0.2), {0: 0, 0.1: 1, 0.2: 2, 0.6: 1, 1: 0}),
    (Cosine(2.0, end=1.0, warmup=0.2), {0: 0, 0.1: 1, 0.2: 2, 0.6: 1.5, 1: 1}),
    (FlatCosine(2.0), {0: 2, 0.5: 2, 0.75: 1, 1: 0}),
    (FlatCosine(2.0, end=1.0, flat=0.0), {0: 2, 0.5: 1.5, 1: 1}),
    (CosineCycles(2.0, cycles=1), {0: 2, 1 / 3: 1.5, 0.5: 1, 1: 0}),
    (CosineCycles(2.0, end=1.0, cycles=4), {0: 2, 0.125: 1.5, 0.25: 2, 0.375: 1.5, 0.75: 2, 1: 1}),
    (CosLog(2.0, cycles=1), {0: 0, 2**0.5 - 1: 2, 1: 0}),
    # Cycle n ends at (2^n - 1) / 15; its peak is where log2 passes n - 1/2.
    (CosLog(2.0), {0: 0, 1 / 15: 0, 3 / 15: 0, 7 / 15: 0, 1: 0, (2**3.5 - 1) / 15: 2}),
    (EarlyOnly(0.3, until=0.4), {0: 0.3, 0.39: 0.3, 0.4: 0, 1: 0}),
    (LateOnly(0.3, since=0.4), {0: 0, 0.39: 0, 0.4: 0.3, 1: 0.3}),
]


@pytest.mark.parametrize(("schedule", "points"), POINTS, ids=repr)
def test_values_at_hand_picked_points(schedule, points):
    for progress, expected in points.items():
        assert schedule.at(progress) == pytest.approx(expected, abs=1e-12), progress


@pytest.mark.parametrize("schedule", [schedule for schedule, _ in POINTS], ids=repr)
def test_no_value_lies_beyond_the_declared_extremes(schedule):
    found = [schedule.at(progress) for progress in np.linspace(0, 1, 2001).tolist()]
    assert min(schedule.values) - 1e-12 <= min(found)
    assert max(found) <= max(schedule.values) + 1e-12
    assert min(found) >= 0
    assert all(isinstance(value, float) and math.isfinite(value) for value in found)


def test_every_schedule_is_in_the_table():
    assert {type(schedule) for schedule, _ in POINTS} == set(Schedule.__subclasses__())


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Cosine(1.0, warmup=1.0), "warmup"),
        (lambda: Cosine(1.0, warmup=-0.1), "warmup"),
        (lambda: FlatCosine(1.0, flat=1.0), "flat"),
        (lambda: CosineCycles(1.0, cycles=0), "cycles"),
        (lambda: CosLog(1.0, cycles=0), "cycles"),
        (lambda: CosLog(1.0, cycles=2.0), "cycles"),
        (lambda: CosLog(1.0, cycles=17), "cycles"),
        (lambda: EarlyOnly(1.0, until=1.1), "until"),
        (lambda: LateOnly(1.0, since=-1), "since"),
    ],
)
def test_settings_out_of_range(make, field):
    with pytest.raises(ConfigError, match=f"`{field}` must be"):
        make()


def test_schedules_are_frozen_hashable_values():
    assert Linear(0.1, end=0.2) == Linear(0.1, 0.2) != Linear(0.1)
    assert hash(Cosine(1.0)) == hash(Cosine(1.0))
    assert Constant(1.0) != Cosine(1.0)
    with pytest.raises(FrozenInstanceError):
        Linear(0.1).start = 0.5


def test_value_at_takes_numbers_and_schedules():
    assert value_at(0.3, 0.9) == 0.3
    assert value_at(Linear(0.0, end=1.0), 0.25) == 0.25


def test_every_cycle_restarts_at_its_first_step():
    for cycles in range(1, 60):
        schedule = CosineCycles(1.0, cycles=cycles)
        assert [schedule.at(cycle * 7 / (7 * cycles)) for cycle in range(cycles)] == [1.0] * cycles
        assert all(schedule.at((cycle * 7 - 1) / (7 * cycles)) < 0.06 for cycle in range(1, cycles))
