"""Fleets: safe from interruption, within their time, never on the wrong data."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from poise import ResumeError
from poise.fleet import Engine, Fleet, within_time
from poise.fleet._fleet import fingerprint
from poise.methods import BatchNorm, Dropout
from poise.recipe import Budget, Network, Recipe
from poise.train import Epoch

from ._tables import make_dataset, make_plan

RECIPE = Recipe(methods=(BatchNorm(), Dropout(p=0.2)), budget=Budget(8, 16), network=Network(width=8, depth=1))


def make_plans(data, num=3):
    return [make_plan(RECIPE, data, seed=seed) for seed in range(num)]


def same(one, other):
    return all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())


class Stop(Exception):
    pass


def test_a_fleet_that_is_cut_off_anywhere_ends_with_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr("poise.fleet._fleet._SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    data = make_dataset()
    straight = Fleet(make_plans(data), data).run()
    for cut in (1, 4, 6, 7):
        seen = []

        def stop(*_, cut=cut, seen=seen):
            seen.append(1)
            if len(seen) == cut:
                raise Stop

        with pytest.raises(Stop):
            Fleet(make_plans(data), data, folder=tmp_path).run(on_epoch=stop)
    resumed = Fleet(make_plans(data), data, folder=tmp_path).run()
    assert all(same(one, other) for one, other in zip(straight, resumed, strict=True))
    assert not list(tmp_path.glob("*.tmp*"))


def test_a_member_does_not_depend_on_its_neighbors():
    data = make_dataset()
    together = Fleet(make_plans(data), data).run()
    alone = Fleet(make_plans(data)[1:2], data).run()
    assert same(alone[0], together[1])


@pytest.mark.parametrize("other", ["data", "seed", "recipe", "rows"])
def test_a_folder_of_another_training_is_refused(tmp_path, other):
    data = make_dataset()
    Fleet(make_plans(data, 1), data, folder=tmp_path).run()
    plan = make_plans(data, 1)[0]
    changes = {
        "seed": lambda: (replace(plan, seed=9), data),
        "recipe": lambda: (replace(plan, recipe=replace(RECIPE, budget=Budget(9, 16))), data),
        "rows": lambda: (replace(plan, train_rows=plan.train_rows[1:]), data),
        "data": lambda: (plan, replace(data, target=np.roll(data.target, 1))),
    }
    changed, table = changes[other]()
    with pytest.raises(ResumeError, match="another training"):
        Fleet([changed], table, folder=tmp_path)


def test_fingerprint_sees_every_cell():
    data = make_dataset()
    changed = data.table.with_columns(x1=data.table["x1"].scatter(3, 0.123))
    assert fingerprint(data) == fingerprint(make_dataset())
    assert fingerprint(data) != fingerprint(replace(data, table=changed))
    assert fingerprint(data) != fingerprint(replace(data, weight=data.weight * 2))


class Slow(Engine):
    """An engine whose epochs take a known time."""

    def __init__(self, paces):
        self.paces = paces

    name = "slow"

    def why_not(self, plan):
        return ""

    def advance(self, plans, states, data, *, until_epochs, on_epoch):
        pace, epoch = self.paces[plans[0].seed], len(states[0].history)
        seconds = 0.5 + pace * epoch  # half a second of one-time work in the first epoch
        states[0].history.append(Epoch(epoch + 1, 0.1, 1.0, 1.0, 0.5, 0.5, seconds))


def test_epochs_fit_the_time_and_quick_plans_leave_theirs_to_slow_ones():
    data = make_dataset()
    plans = [make_plan(replace(RECIPE, budget=Budget(100)), data, seed=seed) for seed in range(3)]
    fitted = within_time(plans, data, 4.0, engines=[Slow([0.001, 0.1, 0.1])])
    epochs = [plan.max_epochs for plan in fitted]
    assert epochs[0] == 100
    assert epochs[1] == pytest.approx(18, abs=3)
    assert epochs[2] == pytest.approx(18, abs=3)
    assert [plan.max_epochs for plan in within_time(plans, data, 4.0, engines=[Slow([0.0, 0.0, 0.0])])] == [100] * 3


def test_the_time_limit_stops_every_plan_and_something_predicts():
    data = make_dataset()
    plans = [make_plan(replace(RECIPE, budget=Budget(10**6, 16)), data, seed=seed) for seed in range(2)]
    states = Fleet(plans, data).run(time_limit=0.3)
    assert [state.stopped for state in states] == ["time", "time"]
    assert all(state.best_epoch >= 1 for state in states)


def test_plans_with_targets_of_their_own_and_late_comers_get_the_bits_of_one_run(tmp_path):
    data = make_dataset()
    straight = Fleet(make_plans(data), data).run()
    fleet = Fleet(make_plans(data)[:2], data, folder=tmp_path)
    fleet.advance({0: 2, 1: 3})
    assert [state.epoch for state in fleet.states] == [2, 3]
    assert [state.stopped for state in fleet.states] == ["", ""]
    fleet.extend(make_plans(data)[2:])
    fleet.advance({2: 1, 0: 5})
    assert [state.epoch for state in fleet.states] == [5, 3, 1]
    fleet.advance(8)
    assert all(same(one, other) for one, other in zip(straight, fleet.states, strict=True))
    resumed = Fleet(make_plans(data)[:1], data, folder=tmp_path)
    resumed.extend(make_plans(data)[1:])
    assert [state.epoch for state in resumed.states] == [8, 8, 8]


def test_released_plans_keep_their_histories_and_never_train_again(tmp_path):
    data = make_dataset()
    fleet = Fleet(make_plans(data), data, folder=tmp_path)
    fleet.advance(2)
    fleet.release([1])
    fleet.advance(4)
    for one in (fleet, Fleet(make_plans(data), data, folder=tmp_path)):
        assert [state.epoch for state in one.states] == [4, 2, 4]
        assert one.states[1].stopped == "pruned"
        assert not one.states[1].tensors
        assert one.pace.num_plans == 3
