"""Splits: every row in one part, shares exact, no group or moment in two parts, the same for the same key."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poise import _errors
from poise._random import Key
from poise.data import Split, duplicated_rows, num_shared_rows, split_rows

CHEAP = settings(max_examples=60, derandomize=True, deadline=None)
SHARES = st.floats(0, 0.45)


def assert_partition(split: Split, num_rows: int) -> None:
    parts = (split.train, split.val, split.test)
    assert all(part.dtype == np.int64 and (np.diff(part) > 0).all() for part in parts)
    assert sorted(np.concatenate(parts).tolist()) == list(range(num_rows))


@CHEAP
@given(st.integers(10, 300), st.floats(0.1, 0.45), st.floats(0.1, 0.45), st.integers(0, 99))
def test_random_split_has_the_right_sizes(num_rows: int, test: float, val: float, seed: int) -> None:
    split = split_rows(num_rows, key=Key(seed), test=test, val=val)
    assert_partition(split, num_rows)
    assert len(split.test) == max(round(num_rows * test), 1)
    assert len(split.val) == max(round(num_rows * val), 1)


@CHEAP
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), SHARES, SHARES, st.integers(0, 9))
def test_stratified_split_is_exact_to_one_row(sizes: list[int], test: float, val: float, seed: int) -> None:
    classes = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    try:
        split = split_rows(len(classes), key=Key(seed), test=test, val=val, classes=classes)
    except _errors.DataError:
        assert sum(sizes) - len(sizes) < 2  # no row can be spared
        return
    assert_partition(split, len(classes))
    for part, share in ((split.test, test), (split.val, val)):
        found = np.bincount(classes[part], minlength=len(sizes))
        room = np.minimum(np.array(sizes) * share, np.array(sizes) - 1)
        assert (np.abs(found - room) <= 1 + 1e-9).all()
    assert set(classes[split.train].tolist()) == set(range(len(sizes)))


@CHEAP
@given(st.lists(st.integers(1, 30), min_size=3, max_size=30), st.floats(0.05, 0.4), st.floats(0.05, 0.4))
def test_no_group_is_in_two_parts(sizes: list[int], test: float, val: float) -> None:
    groups = np.repeat([f"g{i}" for i in range(len(sizes))], sizes)
    split = split_rows(len(groups), key=Key(3), test=test, val=val, groups=groups)
    assert_partition(split, len(groups))
    names = [set(groups[part].tolist()) for part in (split.train, split.val, split.test)]
    assert all(names)
    assert not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2])
    assert abs(len(split.test) - test * len(groups)) <= max(sizes)


def test_grouped_split_comes_near_its_shares() -> None:
    groups = np.random.default_rng(0).integers(0, 200, 5000)
    split = split_rows(5000, key=Key(0), test=0.2, val=0.1, groups=groups)
    assert len(split.test) == pytest.approx(1000, abs=30)
    assert len(split.val) == pytest.approx(500, abs=30)


def test_group_larger_than_the_test_stays_out_of_it() -> None:
    groups = np.where(np.arange(1000) < 600, 0, np.arange(1000))
    for seed in range(20):
        assert len(split_rows(1000, key=Key(seed), test=0.2, val=0.1, groups=groups).test) == 200


@pytest.mark.parametrize("kind", ["numbers", "dates", "text", "polars"])
def test_the_last_rows_are_the_test(kind: str) -> None:
    order = np.random.default_rng(0).permutation(100)
    days = [date(2020, 1, 1) + timedelta(days=int(one)) for one in order]
    times: dict[str, Any] = {
        "numbers": order,
        "dates": np.array(days, dtype="datetime64[D]"),
        "text": [one.isoformat() for one in days],
        "polars": pl.Series(days),
    }
    split = split_rows(100, key=Key(0), test=0.2, val=0.1, times=times[kind])
    assert_partition(split, 100)
    assert sorted(order[split.test]) == list(range(80, 100))
    assert sorted(order[split.val]) == list(range(70, 80))


def test_equal_times_stay_together() -> None:
    times = np.repeat(np.arange(10), 7)
    split = split_rows(70, key=Key(0), test=0.25, val=0.1, times=times)
    assert set(times[split.test]) == {7, 8, 9}
    assert set(times[split.val]) == {6}


def test_same_key_same_split_and_other_key_another() -> None:
    first, again, other = (split_rows(500, key=Key(seed), classes=np.arange(500) % 3) for seed in (1, 1, 2))
    assert np.array_equal(first.test, again.test)
    assert np.array_equal(first.val, again.val)
    assert not np.array_equal(first.test, other.test)


def test_parts_may_be_empty_only_if_asked_for() -> None:
    split = split_rows(10, key=Key(0), test=0, val=0)
    assert (len(split.train), len(split.val), len(split.test)) == (10, 0, 0)
    split = split_rows(10, key=Key(0), test=0.3, val=0, groups=np.arange(10))
    assert (len(split.train), len(split.val), len(split.test)) == (7, 0, 3)


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "share of one": ({"test": 1.0}, _errors.ConfigError, "`test` must be a number in"),
    "shares beyond one": ({"test": 0.5, "val": 0.5}, _errors.ConfigError, r"`test` \+ `val` must be below 1"),
    "groups and times": ({"groups": range(6), "times": range(6)}, _errors.ConfigError, "cannot both rule a split"),
    "short classes": ({"classes": [1, 2]}, _errors.DataError, "Expected 6 classes, one a row, but got 2."),
    "gap in groups": ({"groups": ["a", None, "b", "c", "d", "e"]}, _errors.DataError, r"\(in groups, row 2\)"),
    "gap in times": ({"times": [1.0, 2, 3, 4, 5, float("nan")]}, _errors.DataError, r"\(in times, row 6\)"),
    "mixed times": ({"times": [1, "a", 3, 4, 5, 6]}, _errors.DataError, "Values mix types"),
    "two groups": ({"groups": [0, 0, 0, 1, 1, 1]}, _errors.DataError, "2 groups cannot fill 3 parts"),
    "one moment": ({"times": [1] * 6}, _errors.DataError, "No rows are left for the training part"),
    "class only in the test": (
        {"times": range(6), "classes": list("aaaaab")}, _errors.DataError, "that of row 6. Split at random",
    ),
    "classes without a row to spare": ({"classes": range(6)}, _errors.DataError, "No rows are left for the validation"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_split_that_cannot_be_is_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    values = {name: list(one) if isinstance(one, range) else one for name, one in arguments.items()}
    with pytest.raises(error, match=message):
        split_rows(6, key=Key(0), **values)


def test_shared_rows_are_counted() -> None:
    table = pl.DataFrame({"a": [1.0, 2, None, 1, None, 3], "b": ["x", "y", None, "x", None, "x"]})
    split = Split(np.array([0, 1, 2]), np.array([3, 5]), np.array([4]))
    found = duplicated_rows(table, split)
    assert (found.num_val, found.num_test) == (1, 1)
    assert (found.share_val, found.share_test) == (0.5, 1.0)
    assert str(found) == "1 test rows (100.0 %) and 1 validation rows (50.0 %) equal a training row."
    assert num_shared_rows(table, split.test, np.arange(6)) == 2
    assert num_shared_rows(table.select([]), split.train, split.val) == 0
    empty = np.array([], dtype=np.int64)
    assert duplicated_rows(table, Split(np.arange(6), empty, empty)).share_test == 0
