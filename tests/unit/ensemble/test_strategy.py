"""What every way to train an ensemble does."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch

from poise import Bagging, Boosting, ConfigError, DeepEnsemble, FoldEnsemble, ResumeError, SnapshotEnsemble
from poise.ensemble import EnsembleStrategy

from ._data import FIXED, KINDS, TASKS, make_data

STRATEGIES = [
    Bagging(num_members=3),
    Boosting(num_rounds=3, max_epochs=2, width=8, depth=1),
    DeepEnsemble(num_members=2),
    FoldEnsemble(num_folds=2),
    SnapshotEnsemble(num_snapshots=2),
]
every = pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda one: type(one).__name__)


def test_all_are_here():
    assert {type(one) for one in STRATEGIES} == set(EnsembleStrategy.__subclasses__())


@every
@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_finite_and_probabilities_sum_to_one(strategy, kind):
    data = make_data(kind)
    table, target, weight = data.table.clone(), data.target.copy(), data.weight.copy()
    ensemble = strategy.train(data, TASKS[kind], FIXED)
    said = ensemble.predictor.predict(data.table)
    assert said.shape == ((80,) if kind == "regression" else (80, {"binary": 2, "multiclass": 3}[kind]))
    assert torch.isfinite(said).all()
    if kind == "regression":
        assert 80 < said.mean() < 120  # in the target's own units
    else:
        torch.testing.assert_close(said.sum(1), torch.ones(80, dtype=torch.float64))
    assert ensemble.seconds > 0
    assert ensemble.num_parameters == sum(one.predictor.state.tensors["served"].numel() for one in ensemble.members)
    assert ensemble.predictor.task == TASKS[kind]
    assert ensemble.predictor.encoder.schema == data.schema
    assert data.table.equals(table)
    assert (data.target == target).all()
    assert (data.weight == weight).all()


@every
def test_the_seed_decides(strategy):
    data = make_data()
    one, same, other = (
        strategy.train(data, TASKS["binary"], FIXED, seed=seed).predictor.predict(data.table) for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@every
def test_a_folder_of_another_training_is_refused(strategy, tmp_path):
    data = make_data()
    first = strategy.train(data, TASKS["binary"], FIXED, folder=tmp_path)
    again = strategy.train(data, TASKS["binary"], FIXED, folder=tmp_path)
    assert torch.equal(*(one.predictor.predict(data.table) for one in (first, again)))
    with pytest.raises(ResumeError):
        strategy.train(data, TASKS["binary"], FIXED, folder=tmp_path, seed=1)


@every
def test_every_epoch_is_told(strategy):
    seen = []
    strategy.train(make_data(), TASKS["binary"], FIXED, on_epoch=lambda index, plan, state: seen.append(plan.name))
    assert len(seen) >= 4
    assert all(isinstance(name, str) for name in seen)


@every
def test_settings_stay_as_they_are(strategy):
    assert eval(repr(strategy)) == strategy
    with pytest.raises(FrozenInstanceError):
        strategy.extra = 1
    with pytest.raises(ConfigError, match="`val_fraction` must be a number in \\(0, 1\\)"):
        strategy.train(make_data(), TASKS["binary"], FIXED, val_fraction=0.0)
    with pytest.raises(ConfigError, match="`task`"):
        strategy.train(make_data(), "binary", FIXED)


@every
def test_weights_may_be_of_any_size(strategy):
    data = make_data("regression")
    one = strategy.train(data, TASKS["regression"], FIXED).predictor.predict(data.table)
    data.weight[:] *= 1024.0
    np.testing.assert_allclose(strategy.train(data, TASKS["regression"], FIXED).predictor.predict(data.table), one)
