"""The encoder: fitted on its rows only, the same for any order, finite for any input, and saved bit for bit."""

from __future__ import annotations

import json
import math
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import QuantileTransformer

from poise import _errors
from poise.data import Column, Encoder, Inputs, Schema, as_table, infer_schema

FINITE = st.floats(allow_nan=False, allow_infinity=False)
CHEAP = settings(max_examples=50, derandomize=True, deadline=None)
SETTINGS = [("robust", 0), ("robust", 7), ("quantile", 0), ("quantile", 7)]


def mixed_table(num_rows: int = 200, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    start = datetime(2020, 1, 1)
    return pl.DataFrame(
        {
            "n": [None if one < -1 else one for one in rng.normal(size=num_rows).tolist()],
            "m": rng.lognormal(3, 2, size=num_rows),
            "c": [None if one == 0 else "abcde"[one] for one in rng.integers(0, 5, num_rows).tolist()],
            "b": rng.random(num_rows) < 0.5,
            "day": [start.date() + timedelta(days=one) for one in rng.integers(0, 900, num_rows).tolist()],
            "time": [start + timedelta(hours=one) for one in rng.integers(0, 9000, num_rows).tolist()],
            "key": [f"k{i}" for i in range(num_rows)],
        }
    )


def numbers(*values: float | None) -> tuple[pl.DataFrame, Schema]:
    return pl.DataFrame({"x": pl.Series(values, dtype=pl.Float64)}), Schema((Column("x", "number"),))


def encode(table: pl.DataFrame, schema: Schema, **kwargs: Any) -> Inputs:
    return Encoder.fit(table, schema, np.arange(table.height), **kwargs).transform(table, dtype=torch.float64)


def assert_equal(one: Inputs, other: Inputs) -> None:
    assert torch.equal(one.numeric, other.numeric)
    assert torch.equal(one.categorical, other.categorical)


def test_robust_scale_by_hand() -> None:
    # Median 3, quartiles 2 and 4, so z = (x - 3) / 2.
    table, schema = numbers(1, 2, 3, 4, 5)
    z = torch.tensor([-1.0, -0.5, 0, 0.5, 1], dtype=torch.float64)
    torch.testing.assert_close(encode(table, schema).numeric[:, 0], z / torch.sqrt(1 + (z / 3) ** 2))


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 0, 0, 0, 8], [0, 2 / math.sqrt(1 + 4 / 9)]), ([7, 7, 7], [0]), ([None, None], [0])],
    ids=["quartiles coincide", "constant", "all missing"],
)
def test_robust_scale_of_columns_without_spread(values: list[float | None], expected: list[float]) -> None:
    numeric = encode(*numbers(*values)).numeric[:, 0]
    assert sorted(set(numeric.tolist())) == pytest.approx(expected)


def test_quantile_scale_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    values = np.round(rng.lognormal(size=3000), 1)
    ours = encode(*numbers(*values), numeric="quantile").numeric[:, 0].numpy()
    theirs = QuantileTransformer(n_quantiles=1000, output_distribution="normal", subsample=None)
    np.testing.assert_allclose(ours, theirs.fit_transform(values[:, None])[:, 0], atol=1e-6)
    assert np.abs(ours).max() == pytest.approx(5.199, abs=1e-3)


def test_gaps_become_zero_with_an_indicator_only_if_training_rows_have_them() -> None:
    table, schema = numbers(1, None, 3, 5)
    with_gaps = Encoder.fit(table, schema, np.array([0, 1, 2]))
    assert with_gaps.feature_names == ["x", "x is missing"]
    assert with_gaps.transform(table).numeric[1].tolist() == [0, 1]
    without = Encoder.fit(table, schema, np.array([0, 2, 3]))
    assert without.feature_names == ["x"]
    assert without.transform(table).numeric[1].tolist() == [0]


def test_booleans() -> None:
    table = pl.DataFrame({"b": [True, None, False]})
    encoder = Encoder.fit(table, Schema((Column("b", "boolean"),)), np.arange(3))
    assert encoder.num_continuous == 0
    assert encoder.transform(table).numeric.tolist() == [[1, 0], [0, 1], [0, 0]]


def test_categories_by_hand() -> None:
    table = pl.DataFrame({"c": ["b", "a", "b", "a", "once", None, "c", "c"]})
    encoder = Encoder.fit(table, Schema((Column("c", "category"),)), np.arange(6))
    assert encoder.cardinalities == (5,)
    # unknown 0, rare 1, then in order of their text, then missing.
    assert encoder.transform(table).categorical.flatten().tolist() == [3, 2, 3, 2, 1, 4, 0, 0]
    no_gap = Encoder.fit(table, Schema((Column("c", "category"),)), np.arange(5))
    assert no_gap.transform(table).categorical.flatten().tolist() == [3, 2, 3, 2, 1, 0, 0, 0]


def test_category_is_rare_below_five_rows_in_a_long_table() -> None:
    cells = ["common"] * 991 + ["four"] * 4 + ["five5"] * 5
    table = pl.DataFrame({"c": cells})
    codes = encode(table, Schema((Column("c", "category"),))).categorical
    assert [int(codes[i, 0]) for i in (0, 991, 995)] == [2, 1, 3]


def test_as_many_categories_as_rows_stay_within_the_cap() -> None:
    table = pl.DataFrame({"c": [f"c{i:05d}" for i in range(6000)] * 5 + ["top"] * 9})
    encoder = Encoder.fit(table, Schema((Column("c", "category"),)), np.arange(table.height))
    assert encoder.cardinalities == (1002,)
    codes = encoder.transform(table).categorical.flatten()
    # The most frequent stays, then those first by text; the rest are rare.
    assert int(codes[-1]) == 1001
    assert (codes[:6000] == torch.tensor([*range(2, 1001), *[1] * 5001])).all()


def test_all_cells_missing_in_a_category() -> None:
    table = pl.DataFrame({"c": [None, None], "x": [1, 2]}, schema={"c": pl.String, "x": pl.Int64})
    codes = encode(table, Schema((Column("c", "category"), Column("x", "number")))).categorical
    assert codes.flatten().tolist() == [2, 2]


def test_parts_of_dates() -> None:
    table = pl.DataFrame({"d": [date(2020, 1, 1), date(2021, 4, 1), None]})
    encoder = Encoder.fit(table, Schema((Column("d", "date"),)), np.arange(3))
    assert encoder.num_continuous == 2
    assert encoder.num_numeric == 9
    row = dict(zip(encoder.feature_names, encoder.transform(table).numeric[1].tolist(), strict=True))
    assert row["d: sin month"] == pytest.approx(1)
    assert row["d: cos month"] == pytest.approx(0, abs=1e-6)
    assert row["d: sin weekday"] == pytest.approx(math.sin(2 * math.pi * 3 / 7))
    assert row["d: cos day of year"] == pytest.approx(math.cos(2 * math.pi * 90 / 365.25), abs=1e-6)
    assert encoder.transform(table).numeric[2].tolist() == [0] * 8 + [1]


def test_time_of_day_is_a_feature_where_there_is_one() -> None:
    table = pl.DataFrame({"d": [datetime(2020, 1, 1, 6), datetime(2020, 1, 2)]})
    schema = Schema((Column("d", "date"),))
    encoder = Encoder.fit(table, schema, np.arange(2))
    assert encoder.feature_names[-2:] == ["d: sin time of day", "d: cos time of day"]
    assert encoder.transform(table).numeric[0, -2:].tolist() == pytest.approx([1, 0], abs=1e-6)
    assert len(Encoder.fit(table, schema, np.array([1])).feature_names) == 8


@pytest.mark.parametrize(("numeric", "num_bins"), SETTINGS)
def test_state_comes_back_bit_for_bit_through_json(numeric: str, num_bins: int) -> None:
    table = mixed_table()
    encoder = Encoder.fit(table, infer_schema(table), np.arange(150), numeric=numeric, num_bins=num_bins)
    tensors, data = encoder.to_state()
    again = Encoder.from_state(tensors, json.loads(json.dumps(data)))
    assert_equal(again.transform(table), encoder.transform(table))
    assert again.to_state()[1] == data
    assert (again.num_continuous, again.num_numeric) == (encoder.num_continuous, encoder.num_numeric)
    assert (again.cardinalities, again.feature_names) == (encoder.cardinalities, encoder.feature_names)
    assert again.num_bins == encoder.num_bins == num_bins


@pytest.mark.parametrize(("numeric", "num_bins"), SETTINGS)
def test_rows_that_are_not_for_training_are_never_looked_at(numeric: str, num_bins: int) -> None:
    table, rows = mixed_table(), np.arange(0, 200, 2)
    schema = infer_schema(table)
    other = mixed_table(seed=1)
    swapped = pl.concat([table, other])[np.where(np.arange(200) % 2 == 0, np.arange(200), np.arange(200, 400))]
    one = Encoder.fit(table, schema, rows, numeric=numeric, num_bins=num_bins)
    two = Encoder.fit(swapped, schema, rows, numeric=numeric, num_bins=num_bins)
    assert one.to_state()[1] == two.to_state()[1]
    assert all(torch.equal(value, two.to_state()[0][name]) for name, value in one.to_state()[0].items())


@pytest.mark.parametrize(("numeric", "num_bins"), SETTINGS)
def test_order_of_rows_does_not_matter(numeric: str, num_bins: int) -> None:
    table = mixed_table()
    schema, rows = infer_schema(table), np.random.default_rng(0).integers(0, 200, 150)
    one = Encoder.fit(table, schema, rows, numeric=numeric, num_bins=num_bins)
    two = Encoder.fit(table, schema, rows[::-1].copy(), numeric=numeric, num_bins=num_bins)
    assert_equal(one.transform(table), two.transform(table))


def test_layout_dtype_and_shapes() -> None:
    table = mixed_table()
    encoder = Encoder.fit(table, infer_schema(table), np.arange(200), num_bins=5)
    inputs = encoder.transform(table[:17])
    assert inputs.numeric.shape == (17, encoder.num_numeric)
    assert inputs.numeric.dtype == torch.float32
    assert inputs.categorical.dtype == torch.int64
    assert encoder.feature_names[:6] == ["n", "m", "day: year", "day: days", "time: year", "time: days"]
    assert encoder.num_continuous == 6
    assert encoder.feature_names[-1] == "c"
    assert encoder.bins is not None
    assert encoder.bins.shape == (6, 6)
    assert int(inputs.categorical.max()) < encoder.cardinalities[0]
    empty = encoder.transform(table[:0])
    assert empty.numeric.shape == (0, encoder.num_numeric)
    assert empty.categorical.shape == (0, 1)


def test_columns_are_found_by_name_in_any_order() -> None:
    table = mixed_table()
    encoder = Encoder.fit(table, infer_schema(table), np.arange(200))
    moved = table.select(reversed(table.columns)).drop("key").with_columns(extra=1)
    assert_equal(encoder.transform(moved), encoder.transform(table))
    with pytest.raises(_errors.ColumnsError, match="Missing column 'm'"):
        encoder.transform(table.drop("m"))


def test_made_up_names_may_also_be_columns() -> None:
    table = pl.DataFrame({"x": [1.0, None, 3.0], "x is missing": [False, True, True], "^a$": [1, 2, 3], "*": [1, 3, 4]})
    encoder = Encoder.fit(table, infer_schema(table), np.arange(3))
    assert encoder.num_numeric == 5
    assert encoder.transform(table).numeric[:, 3:].tolist() == [[0, 0], [1, 1], [1, 0]]


@pytest.mark.parametrize("values", [[1.0] * 9, [0.0] * 99 + [1.0], [None, None], list(range(50)), [0, 1e-12, 1e12]])
@pytest.mark.parametrize("numeric", ["robust", "quantile"])
@pytest.mark.parametrize("num_bins", [1, 2, 48])
def test_bins_always_increase(values: list[float | None], numeric: str, num_bins: int) -> None:
    table, schema = numbers(*values)
    bins = Encoder.fit(table, schema, np.arange(len(values)), numeric=numeric, num_bins=num_bins).bins
    assert bins is not None
    assert bins.shape == (1, num_bins + 1)
    assert (bins.diff() > 0).all()


def test_bins_are_quantiles_of_the_scaled_numbers() -> None:
    table, schema = numbers(*np.random.default_rng(0).normal(size=1001))
    encoder = Encoder.fit(table, schema, np.arange(1001), num_bins=4)
    scaled = encoder.transform(table, dtype=torch.float64).numeric[:, 0]
    assert encoder.bins is not None
    torch.testing.assert_close(encoder.bins[0], scaled.quantile(torch.arange(5).double() / 4).float())
    assert Encoder.fit(table, schema, np.arange(9)).bins is None


@CHEAP
@given(st.lists(FINITE | st.none(), min_size=1, max_size=30), st.lists(FINITE | st.none(), max_size=10))
@pytest.mark.parametrize(("numeric", "num_bins"), SETTINGS)
def test_any_finite_numbers_give_finite_inputs(
    numeric: str, num_bins: int, train: list[float | None], later: list[float | None]
) -> None:
    table, schema = numbers(*train, *later)
    encoder = Encoder.fit(table, schema, np.arange(len(train)), numeric=numeric, num_bins=num_bins)
    numeric_part = encoder.transform(table).numeric
    assert numeric_part.isfinite().all()
    assert numeric_part.abs().max() <= 5.2
    if encoder.bins is not None:
        assert encoder.bins.isfinite().all()
        assert (encoder.bins.diff() > 0).all()


@CHEAP
@given(st.lists(FINITE, min_size=2, max_size=30, unique=True))
def test_scaling_keeps_the_order(values: list[float]) -> None:
    for numeric in ("robust", "quantile"):
        scaled = encode(*numbers(*sorted(values)), numeric=numeric).numeric[:, 0]
        assert (scaled.diff() >= 0).all()


@CHEAP
@given(st.lists(st.text() | st.none(), min_size=1, max_size=40), st.lists(st.text(), max_size=10), st.randoms())
def test_any_text_is_a_category(train: list[str | None], later: list[str], random: Any) -> None:
    schema = Schema((Column("c", "category"),))
    table = as_table(pl.DataFrame({"c": pl.Series([*train, *later], dtype=pl.String)}))
    encoder = Encoder.fit(table, schema, np.arange(len(train)))
    codes = encoder.transform(table).categorical[:, 0]
    assert ((codes >= 0) & (codes < encoder.cardinalities[0])).all()
    assert (codes[: len(train)] > 0).all()
    unseen = [one not in train for one in later]
    assert (codes[len(train) :] == 0).tolist() == unseen
    shuffled = random.sample(train, len(train))
    again = Encoder.fit(pl.DataFrame({"c": pl.Series(shuffled, dtype=pl.String)}), schema, np.arange(len(train)))
    assert again.to_state()[1] == encoder.to_state()[1]


@pytest.mark.parametrize("value", [1e300, -1e300, 1.7976931348623157e308, 5e-324, 0.0, 1e31])
def test_extreme_number_at_predict_is_clipped(value: float) -> None:
    table, schema = numbers(1, 2, 3, 4, 5)
    for numeric in ("robust", "quantile"):
        encoder = Encoder.fit(table, schema, np.arange(5), numeric=numeric)
        assert encoder.transform(pl.DataFrame({"x": [value]})).numeric.abs().max() <= 5.2


def test_what_cannot_be_fitted_is_refused() -> None:
    table, schema = numbers(1, 2, float("inf"))
    with pytest.raises(_errors.DataError, match=r"Infinite number inf. \(in column 'x', row 3\)"):
        Encoder.fit(table, schema, np.array([2, 1]))
    Encoder.fit(table, schema, np.array([0, 1]))
    with pytest.raises(_errors.DataError, match="Zero training rows"):
        Encoder.fit(table, schema, np.array([], dtype=np.int64))
    with pytest.raises(_errors.DataError, match=r"No column can be used as a feature \('k': always 'x', left out\)"):
        Encoder.fit(pl.DataFrame({"k": ["x", "x"]}), infer_schema(pl.DataFrame({"k": ["x", "x"]})), np.arange(2))
    with pytest.raises(_errors.ConfigError, match="`numeric` must be one of 'robust', 'quantile'"):
        Encoder.fit(table, schema, np.arange(2), numeric="minmax")
    with pytest.raises(_errors.ConfigError, match="`num_bins` must be an integer in"):
        Encoder.fit(table, schema, np.arange(2), num_bins=-1)


def test_damaged_state_is_refused() -> None:
    table = mixed_table()
    tensors, data = Encoder.fit(table, infer_schema(table), np.arange(200), num_bins=3).to_state()
    changes: list[dict[str, Any]] = [
        {"format": 2}, {"numeric": "evil"}, {"schema": {}}, {"clocks": ["n"]}, {"gaps": ["key"]}, {"buckets": []},
        {"buckets": [{"kept": [1], "rare": [], "has_missing": False}]}, {"buckets": [{}]}, {"clocks": None},
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(_errors.BundleError):
            Encoder.from_state(tensors, data | change)
    odd_bins, foreign = tensors | {"bins": torch.ones(1, 4)}, tensors | {"evil": tensors["bins"]}
    for broken in ({}, {"center": tensors["center"]}, odd_bins, foreign):
        with pytest.raises(_errors.BundleError):
            Encoder.from_state(broken, data)
    for name in data:
        with pytest.raises(_errors.BundleError):
            Encoder.from_state(tensors, {key: value for key, value in data.items() if key != name})
