import datetime as dt
import json

import numpy as np
import onnx
import onnxruntime
import polars as pl
import pytest

import poise
from poise import Budget, Network, PoiseClassifier, PoiseRegressor, Recipe, predict_table
from poise.integrations._parity import feed_of
from poise.methods import BatchNorm, Dropout


def gaps(values, rng):
    return [None if rng.random() < 0.1 else one for one in values]


def table(num=90):
    rng = np.random.default_rng(0)
    days = [dt.datetime(1900 + int(year), 1 + int(year) % 12, 28, 5, 6, 7) for year in rng.integers(0, 199, num)]
    return pl.DataFrame(
        {
            "age": gaps(rng.normal(40, 10, num).round().tolist(), rng),
            "city": gaps(rng.choice(["a", "b", "Zürich", "漢字 🦊"], num).tolist(), rng),
            "empty": rng.choice(["", "x"], num).tolist(),
            "member": gaps((rng.random(num) < 0.5).tolist(), rng),
            "when": gaps(days, rng),
            "label": rng.random(num),
        }
    )


def recipe(**network):
    return Recipe(
        methods=(BatchNorm(), Dropout(p=0.2)), network=Network(width=8, depth=1, **network), budget=Budget(max_epochs=2)
    )


def run(path, data, columns):
    session = onnxruntime.InferenceSession(path)
    return session.run(None, feed_of(data, columns))


def other_rows(data):
    """Unseen categories, all missing, and dates before 1970."""
    odd = {"age": [None, 1e300], "city": [None, "Atlantis"], "empty": ["", "new"], "member": [None, True],
           "when": [None, dt.datetime(1600, 2, 29, 23, 59, 59)], "label": [None, -5.0]}  # fmt: skip
    return pl.concat([data, pl.DataFrame(odd, schema=data.schema)])


@pytest.mark.parametrize(
    "network",
    [
        {"numeric": "quantile", "num_bins": 4, "num_frequencies": 3, "num_members": 3, "parametric": True},
        pytest.param({"numeric": "robust"}, marks=pytest.mark.slow),
    ],
)
def test_a_classifier_takes_raw_columns_and_gives_labels_and_probabilities(tmp_path, network):
    data = table()
    y = np.where(data["label"].to_numpy() > 0.5, "yes", "no")
    model = PoiseClassifier(recipe=recipe(**network), random_state=0).fit(data, y)
    model.save(tmp_path / "bundle")
    path = tmp_path / "model.onnx"
    written = poise.export(tmp_path / "bundle", path)
    assert written.inputs == tuple(data.columns)
    assert written.outputs == ("label_", "probabilities")  # a column has the name of the output
    assert {one.column: one.missing for one in written.columns}["empty"] == ("None", "nan")
    rows = other_rows(data)
    labels, probabilities = run(path, rows, written.columns)
    expected = predict_table(model, rows)
    right = expected.select("probability of no", "probability of yes").to_numpy()
    assert np.abs(probabilities - right).max() <= 1e-5
    assert labels.tolist() == expected["prediction"].to_list()
    kept = {one.key: one.value for one in onnx.load(path).metadata_props}
    assert [one["column"] for one in json.loads(kept["poise.columns"])] == data.columns


@pytest.mark.slow
def test_a_regressor_predicts_in_the_units_of_the_target(tmp_path):
    data = table()
    y = 1e6 + 1e5 * data["label"].to_numpy()
    model = PoiseRegressor(recipe=recipe(numeric="quantile"), random_state=0).fit(data, y)
    written = poise.export(model, tmp_path / "model.onnx")
    assert written.outputs == ("prediction",)
    found = run(tmp_path / "model.onnx", data, written.columns)[0]
    assert np.abs(found - model.predict(data)).max() <= 1e-5 * 1e6
    assert np.abs(found - model.predict(data)).max() <= 1e-5 * np.std(y) * 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", [bool, int, float])
def test_labels_keep_their_type(tmp_path, kind):
    x = np.random.default_rng(0).normal(size=(60, 2))
    y = (x[:, 0] > 0).astype(kind)
    model = PoiseClassifier(recipe=recipe(), random_state=0).fit(x, y)
    written = poise.export(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    labels = session.run(None, {name: x[:, index] for index, name in enumerate(written.inputs)})[0]
    assert labels.dtype == y.dtype
    assert labels.tolist() == model.predict(x).tolist()


def test_hostile_names_are_names_of_inputs_and_of_categories(tmp_path, hostile_names):
    names = [one.encode("utf-8", "backslashreplace").decode() for one in hostile_names]
    rng = np.random.default_rng(0)
    data = pl.DataFrame(
        {one: rng.choice(names, 80).tolist() if i % 2 else rng.random(80) for i, one in enumerate(names)}
    )
    model = PoiseClassifier(recipe=recipe(), random_state=0).fit(data, rng.choice(names[:3], 80))
    written = poise.export(model, tmp_path / "model.onnx")
    assert written.inputs == tuple(names)
    labels, probabilities = run(tmp_path / "model.onnx", data, written.columns)
    assert labels.tolist() == model.predict(data).tolist()
    assert np.abs(probabilities - model.predict_proba(data)).max() <= 1e-5
