"""The task that a target asks for, and its classes."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from poise import _errors
from poise.data import encode_classes, infer_task

GUESSES: dict[str, tuple[Any, str, str]] = {
    "two texts": (["b", "a", "b"], "binary", "2 classes of text"),
    "three texts": (["b", "a", "c"], "multiclass", "3 classes of text"),
    "booleans": ([True, False], "binary", "2 classes of true and false"),
    "zero and one": ([0, 1, 1], "binary", "2 classes of whole numbers"),
    "whole floats": ([0.0, 1.0, 2.0], "multiclass", "3 classes of whole numbers"),
    "20 integers": (list(range(20)), "multiclass", "20 classes of whole numbers"),
    "21 integers": (list(range(21)), "regression", "21 different numbers"),
    "fractions": ([0.5, 1.0], "regression", "numbers with fractions"),
    "pandas categories": (pd.Series(pd.Categorical([3, 4, 3])), "binary", "2 classes of text"),
    "polars integers": (pl.Series([1, 2, 3]), "multiclass", "3 classes of whole numbers"),
}


@pytest.mark.parametrize(("values", "task", "note"), GUESSES.values(), ids=GUESSES)
def test_task_and_reason(values: object, task: str, note: str) -> None:
    assert infer_task(values) == (task, note)


def test_classes_are_sorted_and_codes_point_at_them() -> None:
    cases: list[tuple[object, list[object], list[int]]] = [
        (["b", "a", "b"], ["a", "b"], [1, 0, 1]),
        (np.array([7, -1, 7, 3]), [-1, 3, 7], [2, 0, 2, 1]),
        ([True, False, True], [False, True], [1, 0, 1]),
        ([1.5, 0.5], [0.5, 1.5], [1, 0]),
        (np.array([["x"], ["y"]], dtype=object), ["x", "y"], [0, 1]),
        (["é", "</script>", "$"], ["$", "</script>", "é"], [2, 1, 0]),
    ]
    for values, classes, codes in cases:
        found, positions = encode_classes(values)
        assert found == classes
        assert [type(one) for one in found] == [type(one) for one in classes]
        assert positions.tolist() == codes
        assert positions.dtype == np.int64


REFUSED: dict[str, tuple[Any, str]] = {
    "gap": ([1.0, float("nan"), None, 2.0], "The target is missing in row 2, 3. (in target '^a$')"),
    "many gaps": ([None] * 8 + ["a", "b"], "is missing in row 1, 2, 3, 4, 5 and 3 more."),
    "infinite": ([1.0, float("inf")], "The target is infinite in row 2."),
    "mixed types": ([1, "a", 2], "Values mix types. (in column '^a$')"),
    "booleans and text": ([True, "a"], "Values mix types."),
    "one class": (["a", "a"], "Only one value, 'a', in all 2 rows; classification needs 2 classes."),
    "one row": ([1], "Only one value, 1, in all 1 rows"),
    "no rows": ([], "Zero rows."),
    "dates": ([date(2020, 1, 1), date(2020, 1, 2)], "Dates cannot be predicted."),
    "complex": ([1j, 2j], "Complex data not supported."),
}


@pytest.mark.parametrize(("values", "message"), REFUSED.values(), ids=REFUSED)
def test_target_that_cannot_be_learnt_is_refused(values: object, message: str) -> None:
    for use in (infer_task, encode_classes):
        with pytest.raises(_errors.DataError) as caught:
            use(values, name="^a$")
        assert message in str(caught.value)
        assert caught.value.where


def test_text_that_differs_in_every_row_is_no_class() -> None:
    with pytest.raises(_errors.DataError, match="30 different texts in 30 rows are no classes"):
        infer_task([f"name {i}" for i in range(30)])
