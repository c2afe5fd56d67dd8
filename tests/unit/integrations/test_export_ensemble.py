import numpy as np
import onnx
import onnxruntime
import polars as pl
import pytest
import torch

import poise
from poise import Average, Boosting, Budget, ExportError, FoldEnsemble, Network, PoiseClassifier, Recipe, infer_schema
from poise.integrations._parity import feed_of
from poise.methods import BatchNorm, Dropout
from poise.train import Binary, Dataset, Multiclass, Regression

from .test_table_graph import other_rows, table


def recipe(p=0.2, **network):
    return Recipe(methods=(BatchNorm(), Dropout(p=p)), network=Network(width=8, depth=1, **network), budget=BUDGET)


BUDGET = Budget(max_epochs=2)
TWO = (recipe(numeric="quantile", num_bins=4), recipe(num_frequencies=3))
CATEGORIES = pl.DataFrame({"city": ["a", "b", "c"] * 20, "x": [float(i) for i in range(60)]})


def dataset(data, y):
    return Dataset(data, infer_schema(data), np.asarray(y, dtype=float), np.ones(data.height))


def fold_networks(data, y, task, recipes, num_folds=3):
    """A network of each recipe for each fold."""
    learnt = dataset(data, y)
    return [
        one for each in recipes for one in FoldEnsemble(num_folds=num_folds).train(learnt, task, each).predictor.members
    ]


def run(path, data, columns):
    return onnxruntime.InferenceSession(path).run(None, feed_of(data, columns))


def check(predictor, data, path, scale=1.0):
    """The file says what `predictor` says."""
    written = poise.export(predictor, path)
    expected = predictor.predict(data).numpy()
    found = run(path, data, written.columns)
    assert found[-1].shape == expected.shape
    assert np.abs(found[-1] - expected).max() <= 1e-5 * scale
    if len(found) == 2:
        assert found[0].tolist() == found[1].argmax(axis=1).tolist()
    return written


@pytest.mark.slow
def test_folds_of_two_recipes_with_categories_gaps_and_dates(tmp_path):
    data = table()
    # Each city but two is in one fold alone, and gaps are so few that some folds have none.
    city = [f"only {row}" if row % 9 == 0 else "ab"[row % 2] for row in range(data.height)]
    data = data.with_columns(city=pl.Series(city), member=pl.Series([None, True, False] + [True, False, True] * 29))
    members = fold_networks(data, data["label"] > 0.5, Binary(), TWO)
    written = check(Average(members, [0.3, 0.2, 0.1, 0.1, 0.1, 0.2]), other_rows(data), tmp_path / "model.onnx")
    assert len({str(one.encoder.buckets) for one in members}) == 3
    assert len({one.encoder.gaps for one in members}) > 1
    assert written.inputs == tuple(data.columns)


@pytest.mark.slow
def test_values_of_a_regression_have_the_digits_of_float64(tmp_path):
    data = table().select("age", "when", "label")
    y = 1e6 + data["label"].to_numpy()
    members = fold_networks(data, y, Regression(), TWO)
    check(Average(members), data, tmp_path / "model.onnx", scale=np.std(y))


@pytest.mark.slow
def test_many_classes_and_averages_of_averages(tmp_path):
    members = fold_networks(CATEGORIES, np.arange(60) % 3, Multiclass(3), [recipe()], num_folds=2)
    nested = Average([Average(members, [0.25, 0.75]), members[0]], [0.5, 0.5])
    check(nested, CATEGORIES, tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("task", [Binary(), Multiclass(3), Regression()])
def test_networks_that_are_added_up(tmp_path, task):
    y = {"binary": np.arange(60) % 2, "multiclass": np.arange(60) % 3, "regression": 1e3 + 5 * np.arange(60.0)}
    boosting = Boosting(num_rounds=3, max_epochs=20, width=4, depth=1)
    boosted = boosting.train(dataset(CATEGORIES, y[task.kind]), task, recipe()).predictor
    scale = boosted.target_scale if task.kind == "regression" else 1.0
    check(boosted, CATEGORIES, tmp_path / "model.onnx", scale=scale)


def test_doses_do_not_matter_and_networks_of_one_structure_are_followed_once(tmp_path, monkeypatch):
    import poise.integrations._assembly as assembly

    followed, capture = [], assembly.capture
    monkeypatch.setattr(assembly, "capture", lambda *args: followed.append(args) or capture(*args))
    data = CATEGORIES.with_columns(city=pl.Series([f"{i}" if i < 20 else "a" for i in range(60)]))
    members = fold_networks(data, np.arange(60) % 2, Binary(), [recipe(p=0.1), recipe(p=0.4)])
    assert len({one.encoder.cardinalities for one in members}) == 1
    check(Average(members), data, tmp_path / "model.onnx")
    assert len(followed) == 3  # an encoding, a network, and what is made of all predictions
    parts = {one.name.split("/")[1] for one in onnx.load(tmp_path / "model.onnx").graph.node}
    assert sum(one.startswith("encoding") for one in parts) == 3
    assert sum(one.startswith("network") for one in parts) == 6


@pytest.mark.slow
def test_a_gap_is_written_as_what_no_member_saw_as_a_category(tmp_path):
    data = pl.DataFrame({"kind": ["", "None", "x", "x", None, "y"] * 10, "x": [float(i) for i in range(60)]})
    one, other = (
        FoldEnsemble(num_folds=2).train(dataset(part, np.arange(60) % 2), Binary(), recipe()).predictor.members[0]
        for part in (data, data.with_columns(kind=pl.col("kind").replace("", None)))
    )
    # The columns' notes tell what was seen, and must be those of one table.
    other.encoder.__dict__["schema"] = one.encoder.schema
    written = check(Average([one, other]), data, tmp_path / "model.onnx")
    assert written.columns[0].missing == ("nan",)


@pytest.mark.slow
def test_members_without_weight_are_left_out(tmp_path):
    data = CATEGORIES.select("city")
    members = fold_networks(data, np.arange(60) % 2, Binary(), [recipe()], num_folds=2)
    check(Average(members, [0.0, 1.0]), data, tmp_path / "model.onnx")
    names = {one.name for one in onnx.load(tmp_path / "model.onnx").graph.initializer}
    assert not [name for name in names if name.startswith("poise/network1")]
    assert [name for name in names if name.startswith("poise/network0")]


@pytest.mark.slow
def test_the_bundle_of_an_ensemble_is_exported_with_its_labels(tmp_path):
    labels = np.array(["no", "yes"])[np.arange(60) % 2]
    model = PoiseClassifier(recipe=recipe(), random_state=0).fit(CATEGORIES, labels)
    members = fold_networks(CATEGORIES, np.arange(60) % 2, Binary(), [recipe()], num_folds=2)
    model.predictor_ = Average([*members])
    model.save(tmp_path / "bundle")
    written = poise.export(tmp_path / "bundle", tmp_path / "model.onnx")
    found = run(tmp_path / "model.onnx", CATEGORIES, written.columns)
    assert found[0].tolist() == model.predict(CATEGORIES).tolist()
    assert np.abs(found[1] - model.predict_proba(CATEGORIES)).max() <= 1e-5


def test_a_member_of_another_kind_is_refused_with_what_to_do(tmp_path):
    member = fold_networks(CATEGORIES, np.arange(60) % 2, Binary(), [recipe()], num_folds=2)[0]

    class Coin:
        task, encoder = member.task, member.encoder

        def predict(self, rows):
            return torch.full((rows.height, 2), 0.5)

    with pytest.raises(ExportError, match=r"Coin cannot be written as ONNX.*distill"):
        poise.export(Average([member, Coin()]), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
