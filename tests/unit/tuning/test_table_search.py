"""A search of a small table, from the race to the ensemble."""

from dataclasses import replace

import numpy as np
import optuna
import polars as pl
import pytest

from poise import DataError, Float, OneOf, Space, TrainingError
from poise.data import infer_schema
from poise.methods import L2, Dropout, EarlyStopping, LayerNorm
from poise.recipe import AdamW, Budget, Network, Recipe
from poise.train import Binary, Dataset, Multiclass, Regression
from poise.tuning import StudyFile, TableSearchOptions, make_folds, search_table

BASE = Recipe(
    methods=(EarlyStopping(),), optimizer=AdamW(lr=0.01), budget=Budget(9, 32), network=Network(width=8, depth=1)
)
SPACE = Space(
    BASE,
    {
        "norm": OneOf(None, LayerNorm()),
        "dropout": OneOf(None, Dropout(p=0.2)),
        "Dropout.p": Float(0.05, 0.5),
        "optimizer.lr": Float(1e-3, 0.1, log=True),
    },
)
OPTIONS = TableSearchOptions(space=SPACE, portfolio={"base": BASE})


def make_data(task, num_rows=150, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_rows, 3))
    signal = x[:, 0] + np.abs(x[:, 1])
    table = pl.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": np.where(x[:, 2] > 0, "u", "v")})
    target = 100 + 10 * signal if task.kind == "regression" else np.digitize(signal, [0.7, 1.5][: task_cuts(task)])
    return Dataset(table, infer_schema(table), target.astype(float), np.ones(num_rows))


def task_cuts(task):
    return 1 if task.kind == "binary" else 2


@pytest.mark.parametrize("task", [Binary(), Multiclass(3), Regression()], ids=lambda task: task.kind)
def test_the_ensemble_averages_recipes_over_folds_and_predicts(task):
    data = make_data(task)
    found = search_table(data, task, OPTIONS)
    assert found.effort.num_folds == 5
    assert {len(networks) for networks in found.members} == {5}
    assert found.choice.weights.sum() == pytest.approx(1)
    assert len(found.predictor.members) == 5 * len(found.choice.chosen)
    predictions = found.predictor.predict(data.table).numpy()
    if task.kind == "regression":
        assert np.corrcoef(predictions, data.target)[0, 1] > 0.8
    else:
        assert (predictions.argmax(axis=1) == data.target).mean() > 0.7
    assert found.bare is not None
    assert found.bare.plan.recipe.methods == ()
    assert not found.cut_short


def test_every_trial_is_told_with_recipe_rungs_engine_and_seconds():
    trials = search_table(make_data(Binary()), Binary(), OPTIONS).trials
    assert [one.number for one in trials] == list(range(32))
    assert trials[0].origin == "base"
    assert {one.end for one in trials} == {"complete", "pruned"}
    assert all(one.rungs and one.engine == "compiled" and one.seconds > 0 for one in trials)
    finalists = [one for one in trials if one.folds]
    assert {tuple(one.folds) for one in finalists} == {(0, 1), (0, 1, 2, 3, 4)}


def test_the_same_search_finds_the_same_bits_and_resumes_to_them(tmp_path):
    data, options = make_data(Binary()), replace(OPTIONS, quality="fast")
    first = search_table(data, Binary(), options)
    cut = []

    def stop(*_):
        cut.append(1)
        if len(cut) == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search_table(data, Binary(), replace(options, folder=tmp_path, on_epoch=stop))
    seen = []
    resumed = search_table(data, Binary(), replace(options, folder=tmp_path, on_epoch=lambda *_: seen.append(1)))
    assert [one.rungs for one in first.trials] == [one.rungs for one in resumed.trials]
    assert (first.predictor.predict(data.table) == resumed.predictor.predict(data.table)).all()
    assert len(seen) < sum(one.epochs for one in first.trials) + 9


def test_a_study_file_holds_every_trial_once_and_none_that_runs(tmp_path):
    path = tmp_path / "study.db"
    for _ in range(2):
        file = StudyFile(path, SPACE)
        found = search_table(make_data(Binary()), Binary(), replace(OPTIONS, quality="fast", on_trials=file.update))
    study = optuna.load_study(study_name="poise", storage=f"sqlite:///{path}")
    assert sorted(one.user_attrs["number"] for one in study.trials) == list(range(16))
    assert {one.state.name for one in study.trials} == {"COMPLETE", "PRUNED"}
    best = min(found.trials, key=lambda one: one.loss)
    by_number = {one.user_attrs["number"]: one for one in study.trials}
    assert by_number[best.number].intermediate_values == best.rungs
    assert study.best_value == min(one.loss for one in found.trials if one.end == "complete")


def test_a_limit_on_time_ends_with_something_that_predicts():
    data = make_data(Binary(), num_rows=2000)
    slow = replace(OPTIONS, space=replace(SPACE, base=replace(BASE, network=Network(width=256, depth=3))), portfolio={})
    found = search_table(data, Binary(), replace(slow, time_limit=0.2))
    assert found.predictor.predict(data.table).isfinite().all()
    assert found.effort.num_epochs < 30


@pytest.mark.parametrize("num_rows", [2, 8, 11])
def test_very_few_rows_are_enough(num_rows):
    data = make_data(Binary(), num_rows=200)
    rows = np.concatenate([np.flatnonzero(data.target == one)[: num_rows // 2 + one] for one in (0, 1)])
    few = Dataset(data.table[rows], data.schema, data.target[rows], data.weight[rows])
    found = search_table(few, Binary(), replace(OPTIONS, quality="fast"))
    assert found.predictor.predict(few.table).isfinite().all()


def test_a_class_with_a_single_row_is_never_left_out_of_training():
    data = make_data(Multiclass(3))
    target = data.target.copy()
    target[target == 2] = 0
    target[7] = 2
    for fold in make_folds(replace(data, target=target), Multiclass(3), 5, val_fraction=0.2, seed=0):
        assert 2 in target[fold.train]


def test_one_row_and_networks_that_all_fail_are_refused():
    data = make_data(Binary())
    with pytest.raises(DataError, match="two different rows"):
        search_table(Dataset(data.table[:1], data.schema, data.target[:1], data.weight[:1]), Binary(), OPTIONS)
    wild = Space(replace(BASE, methods=(L2(strength=1e38),)), {"optimizer.lr": Float(99.0, 100.0)})
    with pytest.raises(TrainingError, match="finite"):
        search_table(data, Binary(), replace(OPTIONS, space=wild, portfolio={}, quality="fast", time_limit=None))
