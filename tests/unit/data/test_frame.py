"""Tables of other libraries, and the columns that others stumble over."""

from __future__ import annotations

import subprocess
import sys
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from poise import _errors
from poise.data import as_column, as_table

EXPECTED = {
    "count": [1, None, 3],
    "size": [0.5, None, -2.0],
    "name": ["a", None, "c"],
    "flag": [True, None, False],
    "day": [datetime(2020, 1, 2), None, datetime(2021, 3, 4)],
}


def make(library: str) -> Any:
    table = pl.DataFrame(EXPECTED)
    if library == "polars":
        return table
    if library == "lazy":
        return table.lazy()
    if library == "pyarrow":
        return pa.table(EXPECTED)
    return pd.DataFrame(
        {
            "count": pd.array([1, None, 3], dtype="Int64"),
            "size": [0.5, None, -2.0],
            "name": pd.Categorical(["a", None, "c"]) if library == "pandas categories" else ["a", None, "c"],
            "flag": pd.array([True, None, False], dtype="boolean"),
            "day": pd.to_datetime(["2020-01-02", None, "2021-03-04"]),
        }
    )


@pytest.mark.parametrize("library", ["polars", "lazy", "pyarrow", "pandas", "pandas categories"])
def test_every_library_gives_the_same_table(library: str) -> None:
    table = as_table(make(library))
    assert table.to_dict(as_series=False) == EXPECTED
    assert [dtype.base_type() for dtype in table.dtypes] == [pl.Int64, pl.Float64, pl.String, pl.Boolean, pl.Datetime]


def test_input_is_left_as_it_is() -> None:
    frame = make("pandas categories")
    before = frame.copy(deep=True)
    as_table(frame)
    pd.testing.assert_frame_equal(frame, before)
    array = np.array([[1.0, np.nan], [3.0, 4.0]])
    copy = array.copy()
    as_table(array)
    np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "uint64", "float16", "float32", "float64", ">f4", ">i8"])
def test_array_of_any_numbers(dtype: str) -> None:
    table = as_table(np.array([[1, 2], [3, 4]], dtype=dtype))
    assert table.columns == ["x0", "x1"]
    assert table.rows() == [(1, 2), (3, 4)]


def test_other_arrays() -> None:
    assert as_table(np.asfortranarray(np.ones((2, 2)))[::-1]).rows() == [(1, 1), (1, 1)]
    assert as_table([[1, 2], [3, 4]]).rows() == [(1, 2), (3, 4)]
    assert as_table(np.array([["a", "1"], ["b", "2"]])).rows() == [("a", "1"), ("b", "2")]
    assert as_table(np.array([[True], [False]])).dtypes == [pl.Boolean]
    objects = np.array([[1, "a", None], [2.5, None, True]], dtype=object)
    assert as_table(objects).rows() == [(1.0, "a", None), (2.5, None, True)]
    assert as_table(np.zeros((0, 2))).shape == (0, 2)


@pytest.mark.parametrize("gap", [None, np.nan, pd.NA, pd.NaT, np.datetime64("NaT"), np.float32("nan")], ids=repr)
def test_every_kind_of_gap(gap: object) -> None:
    assert as_column([1, gap, 3]).to_list() == [1, None, 3]
    assert as_table(pd.DataFrame({"a": pd.Series(["x", gap], dtype=object)})).rows() == [("x",), (None,)]


def test_values_of_special_types() -> None:
    frame = pd.DataFrame(
        {
            "zoned": pd.to_datetime(["2020-01-02 01:00"]).tz_localize("Europe/Paris"),
            "span": pd.to_timedelta(["1.5 s"]),
            "period": pd.period_range("2020-01", periods=1, freq="M"),
            "codes": pd.Categorical([3]),
            "date": pd.Series([date(2020, 1, 2)], dtype=object),
        }
    )
    row = as_table(frame).row(0)
    assert row == (datetime(2020, 1, 2), 1.5, "2020-01", "3", date(2020, 1, 2))
    assert as_column([2**70, -(10**400)]).to_list() == [float(2**70), float("-inf")]
    assert as_column([True, 2.5]).to_list() == [1.0, 2.5]


def test_mixed_column_is_read_as_text_with_a_warning() -> None:
    frame = pd.DataFrame({"a": pd.Series([1, "x", 2.5], dtype=object)})
    with pytest.warns(_errors.PoiseWarning, match="types in column 'a'"):
        assert as_table(frame)["a"].to_list() == ["1", "x", "2.5"]


def test_hostile_names_and_cells_survive() -> None:
    names = ["<script>", "$\\frac$", "^a.*$", "[/red]", '{"', "a\x00\x1b", "=cmd|calc", "é 中"]
    frame = pd.DataFrame([range(len(names))], columns=names)
    assert as_table(frame).columns == names
    for library in (pl.DataFrame({"^a$": [1.5], "*": [2.5]}), pa.table({"^a$": [1.5], "*": [2.5]})):
        assert as_table(library).to_dict(as_series=False) == {"^a$": [1.5], "*": [2.5]}
    torn = pd.DataFrame([["\udfff"]], columns=pd.Index(["\ud800"], dtype=object), dtype=object)
    assert as_table(torn).to_dict(as_series=False) == {"\\ud800": ["\\udfff"]}


REFUSED: dict[str, tuple[Any, str]] = {
    "duplicate names": (pd.DataFrame([[1, 2, 3]], columns=["a", "b", "a"]), "more than once: 'a'"),
    "duplicate names of pyarrow": (pa.table([[1], [2]], names=["a", "a"]), "more than once: 'a'"),
    "integer and text names": (pd.DataFrame([[1, 2]], columns=["a", 1]), "Column names mix text and other types"),
    "complex array": (np.ones((2, 2), dtype=complex), "Complex data not supported"),
    "complex column": (pd.DataFrame({"a": [1j, 2j]}), "Complex data not supported"),
    "complex objects": (np.array([[1j], ["a"]], dtype=object), "Complex data not supported"),
    "lists": (pd.DataFrame({"a": [[1], [2]]}), "Cells hold lists, records or bytes"),
    "records": (pl.DataFrame({"a": [{"b": 1}]}), "Values of type Struct"),
    "bytes": (pl.DataFrame({"a": [b"x"]}), "Values of type Binary cannot be used. (in column 'a')"),
    "one dimension": (np.ones(3), "Reshape your data"),
    "three dimensions": (np.ones((2, 2, 2)), "the array is of shape (2, 2, 2)"),
    "a single value": (3.0, "the array is a single value"),
    "rows of different lengths": ([[1, 2], [3]], "Not a table"),
    "nothing": (None, "the array is a single value"),
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_table_is_refused(data: object, message: str) -> None:
    with pytest.raises(_errors.DataError) as caught:
        as_table(data)
    assert message in str(caught.value)


def test_sparse_matrix_is_refused() -> None:
    from scipy.sparse import eye_array

    with pytest.raises(_errors.DataError, match=r"Give a dense array: `X.toarray\(\)`"):
        as_table(eye_array(3, format="csc"))


def test_integer_names_become_text() -> None:
    assert as_table(pd.DataFrame([[1, 2]])).columns == ["0", "1"]


def test_column_of_two_dimensions_is_refused_unless_narrow() -> None:
    assert as_column(np.array([[1], [2]])).to_list() == [1, 2]
    with pytest.raises(_errors.DataError, match=r"Expected one column, but the array has shape \(2, 2\)"):
        as_column(np.ones((2, 2)))


def test_nothing_imports_pandas_or_pyarrow() -> None:
    code = (
        "import sys, numpy as np, polars as pl\n"
        "from poise.data import as_table, infer_schema, Encoder\n"
        "table = as_table(pl.DataFrame({'a': [1.0, 2.0, 3.0], 'b': ['x', 'y', 'x']}))\n"
        "Encoder.fit(table, infer_schema(table), np.arange(3)).transform(table)\n"
        "as_table(np.ones((2, 2)))\n"
        "sys.exit(bool({'pandas', 'pyarrow'} & set(sys.modules)))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
