"""What columns are taken for, and how later tables are held against that."""

from __future__ import annotations

import json
from datetime import date, datetime

import numpy as np
import polars as pl
import pytest

from poise import _errors
from poise.data import Column, Schema, as_table, check_columns, infer_schema

N = 100
WORDS = [f"the customer wrote a letter of {i} words about it" for i in range(N)]

KINDS = {
    "age": (["number", "20 different values"], [20 + i % 20 for i in range(N)]),
    "size": (["number", "13 % missing"], [None if i < 13 else i / 7 for i in range(N)]),
    "city": (["category", "3 different values"], ["abc"[i % 3] for i in range(N)]),
    "zip": (["category", "10 different values, less than 1 % missing"], [f"0{i % 10}" for i in range(2 * N)]),
    "is_new": (["boolean", "2 different values"], [i % 2 == 0 for i in range(N)]),
    "as_text": (["boolean", "2 different values, 1 % missing"], [None, *["True", "FALSE"] * 49, "True"]),
    "day": (["date", "100 different values"], [date(2020, 1 + i % 12, 1 + i // 12) for i in range(N)]),
    "iso": (["date", "28 different values"], [f"2020-02-{1 + i % 28:02d}" for i in range(N)]),
    "stamp": (["date", "24 different values"], [f"2020-02-03T{i % 24:02d}:30:00Z" for i in range(N)]),
    "british": (["date", "28 different values"], [f"{1 + i % 28}/2/2020" for i in range(N)]),
    "american": (["date", "28 different values"], [f"02/{1 + i % 28:02d}/2020" for i in range(N)]),
    "unclear": (["category", "day and month cannot be told apart"], [f"0{1 + i % 9}/02/2020" for i in range(N)]),
    "short_year": (["category", "28 different values"], [f"{1 + i % 28:02d}/02/20" for i in range(N)]),
    "code": (["id", "100 different values in 100 rows: looks like an id, left out"], [f"c{i}" for i in range(N)]),
    "nearly": (["id", "97 different values: looks like an id"], [f"c{max(i, 3)}" for i in range(N)]),
    "less": (["category", "90 different values"], [f"c{max(i, 10)}" for i in range(N)]),
    "customer_id": (["id", "looks like an id, left out"], [7 * i % 101 for i in range(N)]),
    "IDNumber": (["id", "looks like an id, left out"], [7 * i % 101 for i in range(N)]),
    "humidity": (["number", "100 different values in 100 rows"], [7 * i % 101 for i in range(N)]),
    "column_1": (["id", "100 different values in 100 rows: counts the rows, left out"], list(range(1, N + 1))),
    "rising": (["number", "100 different values in 100 rows"], [2 * i for i in range(N)]),
    "letter": (["text", "100 different values in 100 rows, long text: left out"], WORDS),
    "always": (["constant", "always 'x', left out"], ["x"] * N),
    "never": (["constant", "no value in any row, left out"], [None] * N),
    "sometimes": (["number", "1 different values, 50 % missing"], [1.0, None] * (N // 2)),
    "stray": (["id", "all but 1 are numbers, for example 'late' in row 100 is not"], [*map(str, range(99)), "late"]),
    "^a$": (["category", "2 different values"], ["u", "v"] * (N // 2)),
    "*": (["number", "3 different values"], [i % 3 for i in range(N)]),
}


@pytest.mark.parametrize("name", KINDS)
def test_kind_and_note(name: str) -> None:
    (kind, note), values = KINDS[name]
    if name == "zip":
        values = [*values[:-1], None]
    (column,) = infer_schema(pl.DataFrame({name: values})).columns
    assert column.name == name
    assert column.kind == kind
    assert note in column.note


def test_small_tables_have_categories_and_no_ids() -> None:
    table = pl.DataFrame({"a": [f"c{i}" for i in range(49)], "count": range(49)})
    assert [column.kind for column in infer_schema(table).columns] == ["category", "number"]


def test_numbers_of_an_array_are_features_whatever_they_look_like() -> None:
    table = as_table(np.stack([np.arange(100.0), np.ones(100), np.full(100, np.nan)], axis=1))
    assert [column.kind for column in infer_schema(table, all_numbers=True).columns] == ["number"] * 3


def test_excluded_columns_and_what_is_left() -> None:
    table = pl.DataFrame({"a": [1, 2, 3], "y": [0, 1, 0], "k": ["x", "x", "x"]})
    schema = infer_schema(table, exclude=("y",))
    assert [column.name for column in schema.columns] == ["a", "k"]
    assert schema.feature_names == ["a"]
    assert [column.name for column in schema.left_out] == ["k"]
    assert schema.of("constant") == schema.left_out
    with pytest.raises(_errors.ColumnsError, match=r"No column named 'z'. The columns are 'a', 'y', 'k'."):
        infer_schema(table, exclude=("z",))
    with pytest.raises(_errors.DataError, match="Zero feature columns"):
        infer_schema(table, exclude=("a", "y", "k"))
    with pytest.raises(_errors.DataError, match="Zero rows"):
        infer_schema(table.head(0))
    with pytest.raises(_errors.DataError, match="Zero feature columns"):
        infer_schema(pl.DataFrame({"a": [1]}).drop("a").with_columns(b=pl.Series([1])), exclude=("b",))


def test_schema_goes_to_json_and_back() -> None:
    schema = infer_schema(pl.DataFrame({name: values[:100] for name, (_, values) in KINDS.items()}))
    assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema


@pytest.mark.parametrize(
    "data",
    [{}, {"columns": 1}, {"columns": [{"name": "a"}]}, {"columns": [{"name": "a", "kind": "evil"}]},
     {"columns": [{"name": 1, "kind": "id"}]}, {"columns": [{"name": "a", "kind": "id", "x": 1}]}],
    ids=repr,
)  # fmt: skip
def test_damaged_schema_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(_errors.BundleError, match="Not a schema"):
        Schema.from_dict(data)


SCHEMA = Schema(
    (
        Column("n", "number"),
        Column("c", "category"),
        Column("key", "id"),
        Column("b", "boolean"),
        Column("d", "date", date_format="%d/%m/%Y"),
    )
)
ROW = (1.5, "x", True, datetime(2020, 2, 1))


@pytest.mark.parametrize(
    "table",
    [
        {"n": [1.5], "c": ["x"], "b": [True], "d": [date(2020, 2, 1)]},
        {"d": ["01/02/2020"], "extra": [1], "b": ["TRUE"], "c": ["x"], "n": [" 1.5 "], "key": ["k"]},
        {"n": ["1.5"], "c": ["x"], "b": [1.0], "d": [datetime(2020, 2, 1)]},
    ],
    ids=["own dtypes", "reordered text with an extra column", "other dtypes"],
)
def test_later_tables_are_matched_by_name(table: dict[str, list[object]]) -> None:
    seen = check_columns(SCHEMA, pl.DataFrame(table))
    assert seen.columns == ["n", "c", "b", "d"]
    assert seen.dtypes == [pl.Float64, pl.String, pl.Boolean, pl.Datetime("us")]
    assert seen.row(0) == ROW


def test_gaps_fit_every_kind() -> None:
    for gap in ([None, None], pl.Series([None, None], dtype=pl.String)):
        seen = check_columns(SCHEMA, pl.DataFrame({"n": gap, "c": gap, "b": gap, "d": gap}))
        assert seen.rows() == [(None,) * 4] * 2


def test_more_text_columns_than_can_be_read_are_refused_at_once() -> None:
    cells = pl.Series(["a", "b"])
    table = pl.DataFrame([cells.alias(f"c{i}") for i in range(50_001)])
    with pytest.raises(_errors.DataError, match=r"50,001 columns hold text or dates.*Choose at most 50,000"):
        infer_schema(table)


def test_many_names_are_cut_short_in_messages() -> None:
    table = pl.DataFrame({f"f{i}": [1, 2] for i in range(2000)})
    with pytest.raises(_errors.ColumnsError, match=r"'f19' and 1,980 more\.$"):
        infer_schema(table, exclude=["z"])


def test_whole_numbers_are_the_same_category_however_they_come() -> None:
    schema = Schema((Column("c", "category"),))
    for values in (["1", "2"], [1, 2], [1.0, 2.0]):
        assert check_columns(schema, pl.DataFrame({"c": values}))["c"].to_list() == ["1", "2"]
    assert check_columns(schema, pl.DataFrame({"c": [1.5, 2.0]}))["c"].to_list() == ["1.5", "2.0"]


def test_missing_columns_are_all_named() -> None:
    with pytest.raises(_errors.ColumnsError, match=r"Missing columns 'c', 'd'\. .*found 'n', 'b'"):
        check_columns(SCHEMA, pl.DataFrame({"n": [1], "b": [True]}))


MISFITS = {
    "text for a number": ("n", [1, None, "12a"], "Expected a number, but found '12a'. (in column 'n', row 3)"),
    "date for a number": ("n", [None, date(2020, 1, 1)], "but found '2020-01-01'. (in column 'n', row 2)"),
    "infinite": ("n", [1.0, float("nan"), float("-inf")], "Infinite number -inf. (in column 'n', row 3)"),
    "infinite text": ("n", ["1", "1e999"], "Infinite number inf. (in column 'n', row 2)"),
    "text for a boolean": ("b", ["true", "maybe"], "Expected true or false, but found 'maybe'. (in column 'b', row 2)"),
    "number for a boolean": ("b", [0, 1, 2], "Expected true or false, but found '2'. (in column 'b', row 3)"),
    "text for a date": ("d", ["01/02/2020", "soon"], "Expected a date like %d/%m/%Y, but found 'soon'."),
    "date in another form": ("d", [None, "2020-02-01"], "but found '2020-02-01'. (in column 'd', row 2)"),
    "number for a date": ("d", [2020], "Expected a date, but found '2020'. (in column 'd', row 1)"),
    "long text": ("n", ["x" * 1000], "x" * 40 + "…"),
}


@pytest.mark.parametrize(("name", "values", "message"), MISFITS.values(), ids=MISFITS)
def test_value_that_does_not_fit_is_named(name: str, values: list[object], message: str) -> None:
    schema = Schema(SCHEMA.of({"n": "number", "b": "boolean", "d": "date"}[name]))
    if any(isinstance(value, str) for value in values):
        values = [None if value is None else str(value) for value in values]
    with pytest.raises(_errors.DataError) as caught:
        check_columns(schema, pl.DataFrame({name: values}))
    assert message in str(caught.value)
    assert caught.value.repair


def test_column_kind_is_checked() -> None:
    with pytest.raises(_errors.ConfigError, match="kind"):
        Column("a", "numeric")
