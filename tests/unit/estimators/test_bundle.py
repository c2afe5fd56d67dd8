"""Bundles: exact round trips, and nothing damaged is ever read."""

import json
import shutil
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load as unpack_tensors

from poise import (
    Bagging,
    Boosting,
    Budget,
    BundleError,
    ConfigError,
    DeepEnsemble,
    FoldEnsemble,
    Network,
    PoiseClassifier,
    PoiseRegressor,
    Recipe,
    load,
)
from poise.estimators._bundle import TENSORS
from poise.methods import BatchNorm, Dropout
from poise.train import to_json

TINY = Recipe(methods=(BatchNorm(), Dropout(p=0.1)), budget=Budget(2, 16), network=Network(8, 1, num_bins=4))
NUM_ROWS = 60


def make_frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "number": np.where(rng.random(NUM_ROWS) < 0.1, np.nan, rng.normal(size=NUM_ROWS)),
            "word": rng.choice(["a", "b", "ü <b>"], NUM_ROWS),
            "flag": rng.random(NUM_ROWS) < 0.5,
            "day": [date(2020, 1, 1) + timedelta(days=int(day)) for day in rng.integers(0, 999, NUM_ROWS)],
        }
    )


LABELS = {
    "text": np.array(["no", "yes"])[np.arange(NUM_ROWS) % 2],
    "integers": np.array([3, -1, 7])[np.arange(NUM_ROWS) % 3],
    "floats": np.array([0.0, 1.0])[np.arange(NUM_ROWS) % 2],
    "booleans": np.arange(NUM_ROWS) % 2 == 0,
    "objects": np.array(["x", "y", "z"], dtype=object)[np.arange(NUM_ROWS) % 3],
}


@pytest.mark.parametrize("kind", LABELS)
def test_a_loaded_classifier_is_the_same(kind, tmp_path):
    frame, y = make_frame(), LABELS[kind]
    model = PoiseClassifier(recipe=TINY, random_state=0).fit(frame, y)
    model.save(tmp_path)
    loaded = load(tmp_path)
    np.testing.assert_array_equal(loaded.predict_proba(frame), model.predict_proba(frame))
    np.testing.assert_array_equal(loaded.predict(frame), model.predict(frame))
    np.testing.assert_array_equal(loaded.classes_, model.classes_)
    assert loaded.classes_.dtype.kind == model.classes_.dtype.kind
    assert loaded.recipe_ == model.recipe_
    assert list(loaded.feature_names_in_) == list(frame.columns)
    assert loaded.history_ == model.history_


def test_a_loaded_regressor_is_the_same(tmp_path):
    x = np.random.default_rng(0).normal(size=(NUM_ROWS, 3))
    model = PoiseRegressor(recipe=TINY, random_state=0).fit(x, 50 + x[:, 0])
    model.save(tmp_path / "deep" / "folder")
    np.testing.assert_array_equal(load(tmp_path / "deep" / "folder").predict(x), model.predict(x))
    model.save(tmp_path / "deep" / "folder")  # saving again replaces


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    PoiseClassifier(recipe=TINY, random_state=0).fit(make_frame(), LABELS["text"]).save(folder)
    return folder


@pytest.fixture
def copy(bundle, tmp_path):
    return shutil.copytree(bundle, tmp_path / "copy")


MEMBERS = ("manifest.json", "model.json", "weights.safetensors")


@pytest.mark.parametrize("member", MEMBERS)
def test_every_flipped_bit_is_refused(copy, member):
    path = copy / member
    content, rng = path.read_bytes(), np.random.default_rng(1)
    every = range(8 * len(content)) if len(content) < 200 else rng.integers(0, 8 * len(content), 400).tolist()
    for bit in every:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(BundleError, match=r"cannot be trusted"):
            load(copy)
    path.write_bytes(content)
    load(copy)


@pytest.mark.parametrize("member", MEMBERS)
def test_every_truncation_is_refused(copy, member):
    content = (copy / member).read_bytes()
    for length in np.linspace(0, len(content) - 1, 40).astype(int).tolist():
        (copy / member).write_bytes(content[:length])
        with pytest.raises(BundleError):
            load(copy)
    (copy / member).unlink()
    with pytest.raises(BundleError):
        load(copy)


def test_what_does_not_belong_is_refused(copy, bundle):
    (copy / "extra.py").write_text("print('hello')")
    with pytest.raises(BundleError, match=r"extra\.py"):
        load(copy)
    (copy / "extra.py").unlink()
    first, second = copy / "model.json", copy / "weights.safetensors"
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)
    with pytest.raises(BundleError):
        load(copy)


def test_a_folder_without_a_bundle_and_a_file_say_what_to_give(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        if path.name == "file":
            path.write_text("x")
        with pytest.raises(BundleError, match="no bundle here"):
            load(path)


def sign(folder):
    """A manifest that matches whatever the members hold."""
    import hashlib

    members = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in MEMBERS[1:]}
    (folder / "manifest.json").write_bytes(to_json({"format": 1, "sha256": members}))


def mutations(value, rng):
    """Copies of nested plain data with one leaf replaced or one entry removed."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    changed = json.loads(json.dumps(value))
    key = keys[rng.integers(len(keys))]
    if isinstance(value[key], dict | list) and value[key] and rng.random() < 0.8:
        changed[key] = mutations(value[key], rng)
    elif rng.random() < 0.3:
        del changed[key]
    else:
        changed[key] = [None, -1, 10**6, "os.system", [], {}, 0.5, "category"][rng.integers(8)]
    return changed


def test_a_signed_but_wrong_model_is_refused_or_predicts_finite_numbers(copy):
    model, rng, frame = json.loads((copy / "model.json").read_bytes()), np.random.default_rng(2), make_frame()
    refused = 0
    for _ in range(150):
        (copy / "model.json").write_bytes(to_json(mutations(model, rng)))
        sign(copy)
        try:
            loaded = load(copy)
        except BundleError:
            refused += 1
            continue
        try:
            assert np.isfinite(loaded.predict_proba(frame)).all()
        except ValueError as error:  # columns renamed by the mutation: the frame does not fit any more
            assert "column" in str(error).lower() or "feature" in str(error).lower()
        except UserWarning as warning:  # the names were removed; scikit-learn says so
            assert "fitted without feature names" in str(warning)
    assert refused > 50


@pytest.mark.parametrize(
    "ensemble",
    [Bagging(num_members=3), DeepEnsemble(num_members=2), FoldEnsemble(num_folds=2), Boosting(num_rounds=2)],
    ids=lambda one: type(one).__name__,
)
@pytest.mark.parametrize("kind", [PoiseClassifier, PoiseRegressor])
def test_an_ensemble_is_read_as_it_was_written(tmp_path, ensemble, kind):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 3))
    y = x[:, 0] + x[:, 1] if kind is PoiseRegressor else np.digitize(x[:, 0] + x[:, 1], [-0.5, 0.5])
    recipe = Recipe(budget=Budget(4, 32), network=Network(width=8, depth=1))
    model = kind(recipe=recipe, ensemble=ensemble, random_state=0).fit(x, y)
    model.save(tmp_path)
    loaded = load(tmp_path)
    assert (loaded.predict(x) == model.predict(x)).all()
    assert loaded.chosen_ == type(ensemble).__name__
    encoders = {name.split(".")[0] for name in unpack_tensors((tmp_path / TENSORS).read_bytes()) if "encoder" in name}
    assert len(encoders) == (1 if isinstance(ensemble, DeepEnsemble | Boosting) else len(model.candidates_))


def test_a_search_is_read_as_it_was_written(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 3))
    model = PoiseClassifier(quality="fast", random_state=0).fit(x, x[:, 0] > 0)
    model.save(tmp_path)
    assert (load(tmp_path).predict_proba(x) == model.predict_proba(x)).all()
    assert load(tmp_path).history_ == model.history_


def test_an_ensemble_needs_a_recipe():
    x = np.random.default_rng(0).normal(size=(40, 2))
    with pytest.raises(ConfigError, match="recipe='auto' searches"):
        PoiseClassifier(ensemble=Bagging()).fit(x, x[:, 0] > 0)
    with pytest.raises(ConfigError, match="EnsembleStrategy"):
        PoiseClassifier(recipe="bare", ensemble="bagging").fit(x, x[:, 0] > 0)
