"""Merging equal rows, choosing, and failing."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from poise import DataError, TrainingError
from poise.data import infer_schema
from poise.estimators._candidates import TrainingOptions, train_candidates
from poise.methods import L2, Dropout, EarlyStopping
from poise.recipe import AdamW, Budget, Constant, Network, Recipe
from poise.train import Binary, Dataset
from poise.tuning import merge_equal_rows

TINY = Recipe(budget=Budget(3, 16), network=Network(width=8, depth=1))


def make_data(num_rows=60, seed=0):
    rng = np.random.default_rng(seed)
    words = [["u", "v", None][index] for index in rng.integers(0, 3, num_rows)]
    table = pl.DataFrame({"a": rng.integers(0, 4, num_rows), "b": words})
    target = (table["a"].to_numpy() > 1).astype(float)
    return Dataset(table, infer_schema(table), target, rng.integers(0, 3, num_rows).astype(float))


def repeated(data):
    rows = np.repeat(np.arange(len(data.target)), data.weight.astype(int))
    return Dataset(data.table[rows], data.schema, data.target[rows], np.ones(len(rows)))


def shuffled(data):
    rows = np.random.default_rng(1).permutation(len(data.target))
    return Dataset(data.table[rows], data.schema, data.target[rows], data.weight[rows])


@pytest.mark.parametrize("change", [repeated, shuffled])
def test_weights_are_repetitions_and_order_does_not_matter(change):
    data = make_data()
    one, other = merge_equal_rows(data), merge_equal_rows(change(data))
    assert one.table.equals(other.table)
    np.testing.assert_array_equal(one.target, other.target)
    np.testing.assert_array_equal(one.weight, other.weight)
    assert one.weight.sum() == data.weight.sum()
    assert one.table.with_columns(y=pl.Series(one.target)).is_duplicated().sum() == 0


def test_the_training_follows():
    data = make_data()
    first, second = (
        train_candidates(one, Binary(), {"tiny": TINY}, TrainingOptions()).chosen for one in (data, repeated(data))
    )
    assert torch.equal(first.state.tensors["served"], second.state.tensors["served"])


def test_validation_chooses():
    data = replace(make_data(200), weight=np.ones(200))
    hopeless = replace(TINY, optimizer=AdamW(lr=Constant(0.0)))
    good = replace(TINY, methods=(Dropout(p=0.1), EarlyStopping(patience=50)), budget=Budget(30, 16))
    found = train_candidates(data, Binary(), {"hopeless": hopeless, "good": good}, TrainingOptions())
    assert found.chosen.name == "good"
    assert found.chosen.state.val_loss == min(one.state.val_loss for one in found.trained)


def test_a_network_that_diverges_is_left_out_and_named():
    wild = replace(TINY, methods=(L2(strength=1e38),), optimizer=AdamW(lr=Constant(100.0)))
    found = train_candidates(make_data(), Binary(), {"wild": wild, "tiny": TINY}, TrainingOptions())
    assert found.failed == ("wild",)
    assert [one.name for one in found.trained] == ["tiny"]
    with pytest.raises(TrainingError, match=r"No network ended with finite weights \(wild\)"):
        train_candidates(make_data(), Binary(), {"wild": wild}, TrainingOptions())


def test_one_distinct_row_is_too_few():
    data = make_data()
    same_rows = Dataset(data.table[[0, 0, 0]], data.schema, data.target[[0, 0, 0]], np.ones(3))
    with pytest.raises(DataError, match="two different rows"):
        train_candidates(same_rows, Binary(), {"tiny": TINY}, TrainingOptions())
