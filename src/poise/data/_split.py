"""Which rows train, which choose, which judge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from poise._checks import Interval, check_real
from poise._errors import ConfigError, DataError
from poise._random import Key
from poise.data._column import as_column

Rows = NDArray[np.int64]
_SHARE = Interval(0, 1, high_open=True)


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers, sorted, each row in exactly one part.

    Args:
        train: Rows to learn from.
        val: Rows for early stopping and choice.
        test: Rows that nothing looks at before the report.
    """

    train: Rows
    val: Rows
    test: Rows


def split_rows(
    num_rows: int,
    *,
    key: Key,
    test: float = 0.2,
    val: float = 0.2,
    classes: object = None,
    groups: object = None,
    times: object = None,
) -> Split:
    """Split the rows 0 … num_rows - 1 into training, validation and test rows.

    Random without further arguments. With `classes` each part has each class's share exact to one row, and every
    class trains. With `groups` no group is in two parts. With `times` the last rows are test rows and those before
    them validation rows; rows of equal time stay together.

    Args:
        num_rows: N ≥ 1.
        key: Names the random numbers.
        test: Share of all rows for the test, in [0, 1).
        val: Share of all rows for validation, in [0, 1); `test + val < 1`.
        classes: (N,) class codes.
        groups: (N,) group labels.
        times: (N,) numbers, dates or ISO text, without gaps.

    Raises:
        ConfigError: If a share is out of range, or both `groups` and `times` are given.
        DataError: If there are too few rows or groups, or a class would have no training row.

    Example:
        >>> split = split_rows(10, key=Key(0), classes=[0] * 5 + [1] * 5)
        >>> len(split.train), len(split.val), len(split.test)
        (6, 2, 2)
    """
    check_real("test", test, _SHARE)
    check_real("val", val, _SHARE)
    if test + val >= 1:
        raise ConfigError(f"`test` + `val` must be below 1, but got {test} + {val}.")
    if groups is not None and times is not None:
        raise ConfigError("`groups` and `times` cannot both rule a split; give one of them.")
    codes = None if classes is None else _labels("classes", classes, num_rows)
    if times is not None:
        parts = _by_time(_labels("times", times, num_rows), (val, test))
    elif groups is not None:
        parts = _by_group(_labels("groups", groups, num_rows), (test, val), key)
    else:
        labels = np.zeros(num_rows, dtype=np.int64) if codes is None else codes
        parts = _by_class(labels, (test, val), key)
    split = Split(*(np.flatnonzero(parts == part) for part in range(3)))
    _check_split(split, codes, test=test, val=val)
    return split


def _labels(name: str, values: object, num_rows: int) -> Rows:
    """The values as integers 0, 1, … in their order."""
    column = as_column(values, name=name)
    if len(column) != num_rows:
        raise DataError(f"Expected {num_rows} {name}, one a row, but got {len(column)}.")
    if column.has_nulls():
        row = (column.is_null().arg_max() or 0) + 1
        raise DataError("A value is missing.", where=f"{name}, row {row}", repair="Drop the row or fill it in.")
    return np.asarray(column.rank("dense").to_numpy(), dtype=np.int64) - 1


def _by_class(labels: Rows, shares: tuple[float, float], key: Key) -> Rows:
    """Part of each row: within each class, the first rows in random order are test rows, the next validation rows."""
    sizes: Rows = np.bincount(labels)
    order = key.stream("split").permutation(len(labels)).numpy()
    order = order[np.argsort(labels[order], kind="stable")]
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    num_test = _shared_out(sizes, shares[0], room=sizes - 1)
    num_val = _shared_out(sizes, shares[1], room=sizes - 1 - num_test)
    of_row = labels[order]
    parts = np.zeros(len(labels), dtype=np.int64)
    parts[order] = np.where(rank < num_test[of_row], 2, np.where(rank < (num_test + num_val)[of_row], 1, 0))
    return parts


def _shared_out(sizes: Rows, share: float, room: Rows) -> Rows:
    """How many of each class, by largest remainder, so that the total is right and each is exact to one row."""
    exact = sizes * share
    number: Rows = np.minimum(np.floor(exact).astype(np.int64), room)
    wanted = max(round(float(exact.sum())), 1 if share > 0 else 0) - int(number.sum())
    remainder = np.where(number < room, exact - number, -1.0)
    takers = np.argsort(-remainder, kind="stable")[: max(wanted, 0)]
    number[takers[remainder[takers] >= 0]] += 1
    return number


def _by_group(labels: Rows, shares: tuple[float, float], key: Key) -> Rows:
    """Part of each row: groups in random order join a part as long as that brings its size nearer to its share."""
    sizes = np.bincount(labels)
    needed = 1 + sum(share > 0 for share in shares)
    if len(sizes) < needed:
        raise DataError(
            f"{len(sizes)} groups cannot fill {needed} parts.", repair="Give more groups, or set `test` or `val` to 0."
        )
    waiting = key.stream("split").permutation(len(sizes)).tolist()
    part_of_group = np.zeros(len(sizes), dtype=np.int64)
    for part, share in zip((2, 1), shares, strict=True):
        chosen = _nearest(waiting, sizes, share * len(labels), spare=part if shares[1] > 0 else 1)
        part_of_group[chosen] = part
        waiting = [group for group in waiting if part_of_group[group] == 0]
    parts: Rows = part_of_group[labels]
    return parts


def _nearest(waiting: list[int], sizes: Rows, wanted: float, *, spare: int) -> list[int]:
    """Groups of about `wanted` rows in all, at least one if any are wanted, leaving `spare` groups for later parts."""
    chosen: list[int] = []
    total = 0
    for group in waiting:
        if len(waiting) - len(chosen) <= spare:
            break
        if sizes[group] < 2 * (wanted - total):
            chosen.append(group)
            total += int(sizes[group])
    if wanted > 0 and not chosen:
        chosen = [min(waiting, key=lambda group: int(sizes[group]))]
    return chosen


def _by_time(ranks: Rows, shares: tuple[float, float]) -> Rows:
    """Part of each row: parts begin where their share of later rows begins, moved back to the first equal time."""
    order = np.sort(ranks)
    parts = np.zeros(len(ranks), dtype=np.int64)
    later = 0.0
    for part, share in ((2, shares[1]), (1, shares[0])):
        num_later = round((later + share) * len(ranks))
        later += share
        if share > 0 and num_later > 0:
            parts[(ranks >= order[-num_later]) & (parts == 0)] = part
    return parts


def _check_split(split: Split, codes: Rows | None, *, test: float, val: float) -> None:
    wanted = (("training", split.train, 1.0), ("validation", split.val, val), ("test", split.test, test))
    for name, rows, share in wanted:
        if share > 0 and len(rows) == 0:
            raise DataError(f"No rows are left for the {name} part.", repair="Give more rows or smaller shares.")
    if codes is not None and len(np.unique(codes[split.train])) < len(np.unique(codes)):
        absent = np.setdiff1d(codes, codes[split.train])
        row = int(np.argmax(codes == absent[0])) + 1
        raise DataError(
            f"{len(absent)} class(es) would have no training row, for example that of row {row}.",
            repair="Split at random, or give more rows of the class.",
        )
