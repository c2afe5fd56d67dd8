"""Bad input: each case works with finite predictions, or ends in one error that says what and where."""

import warnings
from datetime import date, timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest

from poise import (
    Budget,
    ColumnsError,
    DataError,
    Network,
    PoiseClassifier,
    PoiseRegressor,
    PoiseWarning,
    Recipe,
    fit,
    predict_table,
)
from poise.methods import BatchNorm

TINY = Recipe(methods=(BatchNorm(),), budget=Budget(2, 16), network=Network(8, 1))
N = 41
RNG = np.random.default_rng(0)
A, B = RNG.normal(size=N), RNG.normal(size=N)
Y = (A > 0).astype(int)
LETTERS = np.array(list("pqr"))[np.arange(N) % 3]


def frame(**columns):
    return pd.DataFrame({"a": A, "b": B} | columns)


def with_cell(value):
    cells = A.copy()
    cells[3] = value
    return frame(a=cells)


def names(*new):
    table = frame()
    table.columns = list(new)
    return table


DAYS = [date(2024, 1, 1) + timedelta(days=row) for row in range(N)]

# Every case that must work: finite predictions, the same number of rows, input untouched.
WORKS = {
    "one NaN": with_cell(np.nan),
    "1e300": with_cell(1e300),
    "constant column": frame(c=np.ones(N)),
    "all-NaN column": frame(c=np.full(N, np.nan)),
    "unicode names": names("größe", "価格"),
    "names with brackets": names('[a] < "b"', "{c}"),
    "string column": frame(c=LETTERS),
    "categorical column": frame(c=pd.Categorical(LETTERS)),
    "as many categories as rows": frame(c=[f"k{row}" for row in range(N)]),
    "date column": frame(c=pd.to_datetime(DAYS)),
    "boolean column": frame(c=np.arange(N) % 2 == 0),
    "nullable integers": frame(c=pd.array([None, *range(N - 1)], dtype="Int64")),
    "nullable booleans": frame(c=pd.array([None, *[True, False] * 20], dtype="boolean")),
    "float16": frame(c=B.astype(np.float16)),
    "single batch row": frame().iloc[:17],
    "all rows equal but one": pd.DataFrame({"a": [0.0] * (N - 1) + [1.0]}),
    "column names that look like code": names("*", "^a$"),
}

# Every case that must be refused, and what the message must say.
REFUSED = {
    "inf": (with_cell(np.inf), r"infin.*'a'|'a'.*infin|row 4"),
    "zero rows": (frame().iloc[:0], r"[Zz]ero rows|0 sample"),
    "zero columns": (pd.DataFrame(index=range(N)), r"[Zz]ero (rows|feature columns)|0 feature"),
    "duplicate names": (names("a", "a"), r"'a'"),
    "names mix text and integers": (names("a", 1), r"names|string"),
    "complex": (frame(c=A + 1j), r"[Cc]omplex"),
    "lists in cells": (frame(c=[[row] for row in range(N)]), r"'c'"),
    "only a constant column": (pd.DataFrame({"a": np.ones(N)}), r"'a'|No column"),
}

FORMS = {
    "pandas": lambda table: table,
    "polars": pl.from_pandas,
    "pyarrow": lambda table: pl.from_pandas(table).to_arrow(),
}


@pytest.mark.parametrize("estimator", [PoiseClassifier, PoiseRegressor])
@pytest.mark.parametrize("case", WORKS)
def test_works(case, estimator):
    table = WORKS[case]
    before = table.copy(deep=True)
    target = Y[: len(table)] if table.nunique().max() > 2 else np.r_[np.zeros(20), np.ones(21)][: len(table)]
    model = estimator(recipe=TINY, random_state=0).fit(table, target)
    predictions = model.predict_proba(table) if estimator is PoiseClassifier else model.predict(table)
    assert np.isfinite(predictions).all()
    assert len(predictions) == len(table)
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize("form", ["polars", "pyarrow"])
@pytest.mark.parametrize("case", ["one NaN", "string column", "boolean column", "date column", "nullable integers"])
def test_every_library_gives_the_same_network(case, form):
    one = PoiseClassifier(recipe=TINY, random_state=0).fit(WORKS[case], Y)
    table = FORMS[form](WORKS[case])
    other = PoiseClassifier(recipe=TINY, random_state=0).fit(table, Y)
    np.testing.assert_array_equal(one.predict_proba(WORKS[case]), other.predict_proba(table))


@pytest.mark.parametrize("estimator", [PoiseClassifier, PoiseRegressor])
@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, estimator):
    table, message = REFUSED[case]
    with pytest.raises((ValueError, TypeError), match=message):
        estimator(recipe=TINY).fit(table, Y[: len(table)])


def test_a_mixed_column_is_read_as_text_and_said_so():
    table = frame(c=[1, "two"] * 20 + [3])
    with pytest.warns(PoiseWarning, match="'c'"):
        model = PoiseClassifier(recipe=TINY, random_state=0).fit(table, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PoiseWarning)
        assert np.isfinite(model.predict_proba(table)).all()


BAD_TARGETS = {
    "one class": (np.zeros(N), r"[Oo]nly one value|class"),
    "NaN": (np.where(np.arange(N) == 2, np.nan, Y), r"NaN|missing.*row 3"),
    "mixed types": (np.array([1, "a"] * 20 + [1], dtype=object), r"mix|type"),
    "too short": (Y[:-1], r"41.*40|inconsistent"),
    "two columns": (np.c_[Y, Y], r"1d array|shape"),
}


@pytest.mark.parametrize("case", BAD_TARGETS)
def test_bad_targets(case):
    target, message = BAD_TARGETS[case]
    for table in (frame(), frame().to_numpy()):
        with pytest.raises(ValueError, match=message):
            PoiseClassifier(recipe=TINY).fit(table, target)


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_bad_weights(weight):
    weights = np.ones(N)
    weights[5] = weight
    with pytest.raises(ValueError, match=r"[Nn]egative|NaN|infinity"):
        PoiseClassifier(recipe=TINY).fit(frame(), Y, sample_weight=weights)
    with pytest.raises(ValueError, match="at least one non-zero"):
        PoiseClassifier(recipe=TINY).fit(frame(), Y, sample_weight=np.zeros(N))


# At predict


@pytest.fixture(scope="module")
def model():
    return PoiseClassifier(recipe=TINY, random_state=0).fit(frame(c=LETTERS), Y)


def test_an_unseen_category_and_a_new_gap_are_no_errors(model):
    table = frame(c=["never seen"] * N)
    table.loc[0, "a"] = np.nan
    table.loc[1, "c"] = None
    assert np.isfinite(model.predict_proba(table)).all()


def test_reordered_columns_are_refused_by_estimators_and_matched_by_name_in_tables(model):
    table = frame(c=LETTERS)
    reordered = table[["c", "b", "a"]]
    with pytest.raises(ValueError, match="same order"):
        model.predict(reordered)
    straight, matched = (predict_table(model, one) for one in (table, reordered.assign(extra=1)))
    assert straight.equals(matched)


def test_missing_and_extra_columns_are_named(model):
    with pytest.raises(ValueError, match="seen at fit time, yet now missing:\n- b"):
        model.predict(frame(c=LETTERS).drop(columns="b"))
    with pytest.raises(ColumnsError, match=r"Missing columns 'a', 'b'"):
        predict_table(model, pl.DataFrame({"c": ["p"]}))


def test_text_in_a_column_of_numbers_names_column_row_and_value(model):
    with pytest.raises(DataError, match=r"'oops'.*column 'a', row 3"):
        predict_table(model, pl.DataFrame({"a": ["1", "2", "oops"], "b": [1.0, 2.0, 3.0], "c": ["p", "q", "r"]}))


def test_infinity_at_predict_is_refused(model):
    table = frame(c=LETTERS)
    table.loc[7, "b"] = -np.inf
    with pytest.raises(DataError, match=r"'b'.*row 8|row 8.*'b'"):
        model.predict(table)


def test_one_row_is_predicted_as_in_the_crowd(model):
    table = frame(c=LETTERS)
    np.testing.assert_allclose(model.predict_proba(table.iloc[[5]]), model.predict_proba(table)[[5]], rtol=1e-12)


def test_a_run_on_a_bad_target_names_the_column_or_the_row():
    with pytest.raises(ValueError, match="Did you mean 'target'"):
        fit(frame(target=Y), target="taget")
    with pytest.raises(DataError, match=r"column 'a', row 4"):
        fit(with_cell(np.inf).assign(target=Y), target="target")
    gappy = frame(target=np.where(np.arange(N) == 2, np.nan, A))
    with pytest.raises(DataError, match=r"row 3.*'target'"):
        fit(gappy, target="target")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recipe": "cocktial"}, "Did you mean 'cocktail'"),
        ({"recipe": 3}, "`recipe` must be"),
        ({"val_fraction": 1.0}, r"`val_fraction` must be a number in \(0, 1\)"),
        ({"time_limit": 0.0}, "`time_limit` must be"),
    ],
)
def test_wrong_settings_are_refused_at_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        PoiseClassifier(**settings).fit(frame(), Y)
