"""Deep ensembles: same rows, other seeds, one mean."""

import pytest
import torch

from poise import ConfigError, DeepEnsemble, TrainingError
from poise.data import Encoder
from poise.fleet import Fleet
from poise.methods import WeightDecay
from poise.recipe import AdamW, Recipe
from poise.train import Dataset, Predictor

from ._data import FIXED, KINDS, STOPPING, TASKS, make_data


@pytest.mark.parametrize("kind", KINDS)
def test_members_are_what_a_fleet_makes_of_other_seeds(kind):
    data = make_data(kind)
    ensemble = DeepEnsemble(num_members=3).train(data, TASKS[kind], STOPPING, seed=5)
    plans = [member.plan for member in ensemble.members]
    assert len({plan.seed for plan in plans}) == 3
    assert all((plan.train_rows == plans[0].train_rows).all() for plan in plans)
    assert all((plan.val_rows == plans[0].val_rows).all() for plan in plans)
    assert len(plans[0].val_rows) == 16
    again = Fleet(plans, data).run()
    alone = [Predictor(plan.recipe, plan.task, one).predict(data.table) for plan, one in zip(plans, again, strict=True)]
    torch.testing.assert_close(
        ensemble.predictor.predict(data.table), torch.stack(alone).mean(0), rtol=1e-12, atol=1e-12
    )
    assert not torch.equal(alone[0], alone[1])
    assert ensemble.num_parameters == 3 * ensemble.members[0].state.tensors["served"].numel()
    assert ensemble.seconds > 0
    assert ensemble.held_out is None
    assert ensemble.notes == ()


def test_a_table_is_encoded_once_for_all_members(monkeypatch):
    data = make_data()
    ensemble = DeepEnsemble(num_members=3).train(data, TASKS["binary"], FIXED)
    calls = []
    plain = Encoder.transform
    monkeypatch.setattr(Encoder, "transform", lambda self, *args, **kw: calls.append(1) or plain(self, *args, **kw))
    ensemble.predictor.predict(data.table)
    assert len(calls) == 1


def test_the_seed_decides_and_a_folder_continues(tmp_path):
    data = make_data()
    train = DeepEnsemble(num_members=2).train
    one, other = (train(data, TASKS["binary"], FIXED, seed=seed).predictor.predict(data.table) for seed in (0, 1))
    assert not torch.equal(one, other)
    seen = []
    for _ in range(2):
        kept = train(data, TASKS["binary"], FIXED, folder=tmp_path, on_epoch=lambda *args: seen.append(args[0]))
        assert torch.equal(kept.predictor.predict(data.table), one)
    assert sorted(seen) == [0] * 4 + [1] * 4


def test_rows_of_weight_zero_are_left_alone():
    data = make_data()
    data.weight[:30] = 0
    ensemble = DeepEnsemble(num_members=2).train(data, TASKS["binary"], FIXED)
    plan = ensemble.members[0].plan
    assert set(plan.train_rows) | set(plan.val_rows) == set(range(30, 80))


def test_no_member_that_stays_finite_is_an_error():
    wild = Recipe(
        optimizer=AdamW(lr=100.0, eps=1e-30), methods=(WeightDecay(weight_decay=1e30),), network=FIXED.network
    )
    with pytest.raises(TrainingError, match="None of the 2 members"):
        DeepEnsemble(num_members=2).train(make_data("regression"), TASKS["regression"], wild)


def test_one_member_is_no_ensemble():
    with pytest.raises(ConfigError, match=r"`num_members` must be an integer in \[2, 10000\], but got num_members=1"):
        DeepEnsemble(num_members=1)


def test_few_rows_train_and_validate_alike():
    data = make_data()
    few = Dataset(data.table[:8], data.schema, data.target[:8], data.weight[:8])
    plan = DeepEnsemble(num_members=2).train(few, TASKS["binary"], FIXED).members[0].plan
    assert list(plan.train_rows) == list(plan.val_rows) == list(range(8))


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="`val_fraction`"):
        DeepEnsemble().train(make_data(), TASKS["binary"], FIXED, val_fraction=1.0)
    with pytest.raises(ConfigError, match="`recipe`"):
        DeepEnsemble().train(make_data(), TASKS["binary"], "cocktail")
