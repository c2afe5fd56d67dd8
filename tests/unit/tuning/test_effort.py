"""What is tried fits the time."""

import pytest

from poise.tuning._effort import QUALITIES, effort_within, full_effort


@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize("num_rows", [100, 50_000])
def test_more_time_is_more_work_and_never_more_than_there_is_time_for(quality, num_rows):
    last = 0
    for epochs in (1, 3, 30, 300, 1000, 3000, 10_000, 100_000):
        effort = effort_within(quality, num_rows, 60, epochs)
        assert effort.num_epochs <= max(epochs, effort_within(quality, num_rows, 1, 0).num_epochs)
        assert effort.num_epochs >= last
        last = effort.num_epochs
    assert effort == full_effort(quality, num_rows, 60)


def test_qualities_are_in_order():
    fast, default, best = (full_effort(quality, 5000, 60).num_epochs for quality in QUALITIES)
    assert fast * 2 < default
    assert default * 4 < best


def test_many_rows_need_no_folds_and_few_do():
    assert full_effort("default", 50_000, 40).num_folds == 1
    assert full_effort("default", 15_000, 40).num_folds == 3
    assert full_effort("default", 1500, 40).num_folds == 5
