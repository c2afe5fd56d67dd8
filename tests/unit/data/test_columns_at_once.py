"""What is found for all columns together is, bit for bit, what is found for each of them alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from numpy.typing import NDArray

from poise import _errors
from poise.data import Column, Encoder, Inputs, Schema, as_column, as_table, check_columns, infer_schema
from poise.data._cells import typed, typed_columns
from poise.data._scale import QuantileScale, RobustScale, _of_ascending, bin_edges

Array = NDArray[np.float64]
HUGE = float(np.finfo(np.float64).max)


def odd_columns(num_rows: int, seed: int) -> dict[str, pl.Series]:
    """Numbers of every kind: with and without gaps, constant, tied, huge, tiny, whole, true and false."""
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=num_rows)
    columns = {
        "normal": pl.Series(normal),
        "again": pl.Series(normal),
        "constant": pl.Series(np.full(num_rows, 7.0)),
        "huge": pl.Series(np.where(rng.random(num_rows) < 0.3, HUGE, -HUGE)),
        "tiny": pl.Series(normal * 1e-300),
        "zeros": pl.Series(np.where(rng.random(num_rows) < 0.5, 0.0, -0.0)),
        "tied": pl.Series(np.floor(normal)),
        "whole": pl.Series(rng.integers(-3, 3, num_rows)),
        "short": pl.Series(rng.integers(0, 9, num_rows), dtype=pl.Int8),
        "single": pl.Series(normal, dtype=pl.Float32),
        "none": pl.Series([None] * num_rows, dtype=pl.Float64),
        "flag": pl.Series(rng.random(num_rows) < 0.5),
    }
    for name, share in (("normal", 0.1), ("whole", 0.1), ("tied", 0.9), ("flag", 0.2), ("huge", 0.1)):
        columns[f"{name} with gaps"] = columns[name].set(pl.Series(rng.random(num_rows) < share), None)
    return columns


def plain_robust(known: Array) -> tuple[float, float]:
    if len(known) == 0:
        return 0.0, 0.0
    low, first, median, third, high = plain_quantiles(known, np.array([0, 0.25, 0.5, 0.75, 1])) / 4
    return median * 4, min(third - first or (high - low) / 2, HUGE / 4) * 4


def plain_quantiles(known: Array, shares: Array) -> Array:
    if len(known) == 0:
        return np.zeros(len(shares))
    found = np.maximum.accumulate(np.quantile(known / 4, shares))
    return np.clip(found, known[0] / 4, known[-1] / 4) * 4


def plain_edges(known: Array, num_bins: int) -> list[float]:
    quantiles = np.quantile(known, np.linspace(0, 1, num_bins + 1)) if len(known) else np.zeros(1)
    found = np.unique(quantiles.astype(np.float32))
    if found[-1] - found[0] < 1e-3:
        return (torch.linspace(-0.5, 0.5, num_bins + 1) + float(found.mean())).tolist()
    edges = found.tolist()
    while len(edges) < num_bins + 1:
        widest = int(np.argmax(np.diff(edges)))
        edges.insert(widest + 1, float(np.float32((edges[widest] + edges[widest + 1]) / 2)))
    return edges


def known_of(values: Array) -> list[Array]:
    return [np.sort(column[~np.isnan(column)]) for column in values.T]


@pytest.mark.parametrize("num_rows", [1, 2, 5, 60, 1500])
def test_scales_and_bins_equal_those_of_one_column_after_the_other(num_rows: int) -> None:
    table = pl.DataFrame(odd_columns(num_rows, seed=num_rows)).cast(pl.Float64)
    values = table.to_numpy()
    robust, quantile = RobustScale.fit(values), QuantileScale.fit(values)
    plain = [plain_robust(known) for known in known_of(values)]
    assert robust.center.tolist() == [center for center, _ in plain]
    assert robust.scale.tolist() == [scale for _, scale in plain]
    shares = np.linspace(0, 1, max(2, min(1000, num_rows)))
    assert np.array_equal(quantile.knots.numpy(), [plain_quantiles(known, shares) for known in known_of(values)])
    for scaled in (robust.transform(values), quantile.transform(values)):
        assert bin_edges(scaled, 7).tolist() == [plain_edges(known, 7) for known in known_of(scaled)]


@pytest.mark.parametrize("numeric", ["robust", "quantile"])
@pytest.mark.parametrize("num_rows", [3, 60])
def test_a_table_is_encoded_as_its_columns_are(numeric: str, num_rows: int) -> None:
    table = pl.DataFrame(odd_columns(num_rows, seed=1))
    kinds = {name: "boolean" if kind == pl.Boolean else "number" for name, kind in table.schema.items()}
    rows = np.arange(0, num_rows, 2)

    def encoded(names: list[str]) -> tuple[list[str], Inputs]:
        schema = Schema(tuple(Column(name, kinds[name]) for name in names))
        encoder = Encoder.fit(table, schema, rows, numeric=numeric)
        return encoder.feature_names, encoder.transform(table, dtype=torch.float64)

    names, together = encoded(table.columns)
    alone = {}
    for name in table.columns:
        own, inputs = encoded([name])
        alone |= dict(zip(own, inputs.numeric.T, strict=True))
    for name, column in zip(names, together.numeric.T, strict=True):
        # Alone, a column with gaps has fewer knots: as many as the fullest column has values.
        if numeric == "robust" or not table[name.removesuffix(" is missing")].has_nulls():
            assert torch.equal(column, alone[name])


@pytest.mark.parametrize("decimal_comma", [False, True])
@pytest.mark.parametrize("num_rows", [1, 4, 300])
def test_cells_are_typed_together_as_alone(num_rows: int, decimal_comma: bool) -> None:
    rng = np.random.default_rng(num_rows)
    words = [" 1", "2 ", "-3", "+4", "0", "05", "-0", "1.5", "1e3", ".5", "inf", "nan", "NaN", "?", "", "NA", " - "]
    words += ["1,5", "1.234,5", "1.234", "x", "true", "99999999999999999999", "1_000", "0x1", "٣"]
    pools = [rng.choice(words, size=rng.integers(1, 5)) for _ in range(400)]
    columns = [pl.Series(f"c{i}", rng.choice(pool, size=num_rows), dtype=pl.String) for i, pool in enumerate(pools)]
    columns[0] = columns[0].set(pl.Series([True] * num_rows), None)
    together = typed_columns(columns, decimal_comma=decimal_comma)
    for cells, one in zip(columns, together, strict=True):
        alone = typed(cells, decimal_comma=decimal_comma)
        assert one.dtype == alone.dtype, cells
        assert one.to_list() == alone.to_list(), cells


def test_a_frame_is_read_as_its_columns_are() -> None:
    rng = np.random.default_rng(0)
    array = np.where(rng.random((9, 5)) < 0.3, np.nan, rng.normal(size=(9, 5)))
    for dtype in (np.float64, np.float32, np.float16):
        table = as_table(array.astype(dtype))
        for i, name in enumerate(table.columns):
            assert table[name].equals(as_column(array.astype(dtype)[:, i], name=name), check_dtypes=True)
    frame = pd.DataFrame(array, columns=list("abcde"))
    frame["f"], frame["g"], frame["h"] = np.arange(9), ["x"] * 9, frame["a"].astype(np.float32)
    frame.insert(2, "flag", [True, False, True] * 3)
    table = as_table(frame)
    assert table.columns == list(frame.columns)
    for name in frame.columns:
        assert table[name].to_list() == as_column(frame[name], name=name).to_list()
    assert [table[name].dtype for name in ("a", "flag", "f", "g", "h")] == [
        pl.Float64,
        pl.Boolean,
        pl.Int64,
        pl.String,
        pl.Float64,
    ]


@pytest.mark.parametrize("bad", [float("inf"), float("-inf")])
def test_one_infinite_number_among_many_columns_is_named(bad: float) -> None:
    values = np.zeros((3, 50))
    values[1, 20] = bad
    table = pl.DataFrame(values, schema=[f"f{i}" for i in range(50)])
    schema = Schema(tuple(Column(name, "number") for name in table.columns))
    with pytest.raises(_errors.DataError, match=r"column 'f20', row 2"):
        check_columns(schema, table)


def test_names_that_look_like_patterns_are_names() -> None:
    table = pl.DataFrame({"^.*$": [1.0, None, 3.0, 4.0], "a": [1, 2, 3, 5], "^b$": [True, None, False, True]})
    encoder = Encoder.fit(table, infer_schema(table), np.arange(4))
    assert encoder.feature_names == ["^.*$", "a", "^b$", "^.*$ is missing", "^b$ is missing"]
    assert encoder.transform(table).numeric[1].tolist()[2:] == [0, 1, 1]


@pytest.mark.parametrize("num_rows", [1, 2, 3, 7, 100, 1309])
@pytest.mark.parametrize("num_shares", [2, 5, 17, 256, 1000])
def test_quantiles_of_ordered_columns_are_those_of_numpy(num_rows, num_shares):
    rng = np.random.default_rng(num_rows)
    columns = rng.normal(size=(num_rows, 5)) * 10.0 ** rng.integers(-200, 200, 5)
    columns[: num_rows // 3] = columns[0]  # ties
    ordered, shares = np.sort(columns, axis=0), np.linspace(0, 1, num_shares)
    np.testing.assert_array_equal(_of_ascending(ordered, shares), np.quantile(ordered, shares, axis=0))
