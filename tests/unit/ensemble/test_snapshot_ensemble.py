"""Snapshots: states at the ends of cycles, with statistics of their own, and safe from interruption."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from poise import ConfigError, ResumeError, SnapshotEnsemble
from poise.fleet import Fleet
from poise.functional.schedule import CosineCycles, CosLog
from poise.methods import SWA, BatchNorm, EarlyStopping
from poise.recipe import AdamW, Recipe
from poise.train import Predictor

from ._data import FIXED, KINDS, PLAIN, TASKS, make_data

NORMED = replace(FIXED, methods=(BatchNorm(),))


class Stop(Exception):
    pass


@pytest.mark.parametrize("kind", KINDS)
def test_members_are_what_the_training_was_at_the_end_of_each_cycle(kind):
    data = make_data(kind)
    ensemble = SnapshotEnsemble(num_snapshots=3).train(data, TASKS[kind], NORMED, seed=4)
    plan = ensemble.members[0].plan
    assert plan.recipe.optimizer.lr == CosineCycles(0.01, cycles=3)
    assert plan.max_epochs == 6  # the recipe's 4, in 3 equal cycles
    for member, epochs in zip(ensemble.members, (2, 4, 6), strict=True):
        state = Fleet([plan], data).advance(epochs)[0]
        assert torch.equal(member.state.tensors["served"], state.tensors["served"])
        assert torch.equal(member.state.tensors["served_statistics"], state.tensors["served_statistics"])
        assert member.state.epoch == epochs
    said = ensemble.predictor.member_predictions(data.table)
    torch.testing.assert_close(ensemble.predictor.predict(data.table), said.mean(0), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(said[0], said[1])


def test_the_learning_rate_restarts():
    ensemble = SnapshotEnsemble(num_snapshots=2).train(make_data(), TASKS["binary"], FIXED)
    rates = [record.lr for record in ensemble.members[-1].state.history]
    assert rates[2] == pytest.approx(rates[0])
    assert rates[1] == pytest.approx(rates[3])
    assert rates[1] < rates[0] / 5


def test_each_snapshot_has_the_exact_statistics_of_its_own_weights():
    data = make_data("regression")
    ensemble = SnapshotEnsemble(num_snapshots=3).train(data, TASKS["regression"], NORMED)
    for member in ensemble.members:
        network = Predictor(member.plan.recipe, member.plan.task, member.state).network
        norm = next(one for one in network.modules() if hasattr(one, "running_mean"))
        seen = []
        norm.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        network(member.predictor.encoder.transform(data.table[member.plan.train_rows], dtype=torch.float64))
        torch.testing.assert_close(norm.running_mean, seen[0].mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var, seen[0].var(0, correction=0), rtol=1e-3, atol=1e-4)


def test_a_killed_training_gives_the_same_snapshots(tmp_path, monkeypatch):
    monkeypatch.setattr("poise.fleet._fleet._SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    data, strategy = make_data(), SnapshotEnsemble(num_snapshots=3)
    straight = strategy.train(data, TASKS["binary"], NORMED).predictor.member_predictions(data.table)
    for cut in (1, 2, 3):
        seen = []

        def stop(*_, cut=cut, seen=seen):
            seen.append(1)
            if len(seen) == cut:
                raise Stop

        with pytest.raises(Stop):
            strategy.train(data, TASKS["binary"], NORMED, folder=tmp_path, engines=PLAIN, on_epoch=stop)
    resumed = strategy.train(data, TASKS["binary"], NORMED, folder=tmp_path, engines=PLAIN)
    again = strategy.train(data, TASKS["binary"], NORMED, folder=tmp_path, engines=PLAIN)
    for one in (resumed, again):
        torch.testing.assert_close(one.predictor.member_predictions(data.table), straight, rtol=1e-4, atol=1e-4)
    assert torch.equal(*(one.predictor.member_predictions(data.table) for one in (resumed, again)))


def test_a_lost_snapshot_is_said(tmp_path):
    data, strategy = make_data(), SnapshotEnsemble(num_snapshots=2)
    strategy.train(data, TASKS["binary"], FIXED, folder=tmp_path)
    (tmp_path / "snapshots" / "snapshot-0.json").unlink()
    with pytest.raises(ResumeError, match="its snapshot of epoch 2 is missing"):
        strategy.train(data, TASKS["binary"], FIXED, folder=tmp_path)


def test_what_does_not_go_with_cycles():
    with pytest.raises(ConfigError, match="SWA averages the weights"):
        SnapshotEnsemble().train(make_data(), TASKS["binary"], replace(FIXED, methods=(SWA(),)))
    with pytest.raises(ConfigError, match="`num_snapshots`"):
        SnapshotEnsemble(num_snapshots=1)
    stopping = Recipe((EarlyStopping(patience=1),), AdamW(lr=CosLog(0.02)), FIXED.budget, FIXED.network)
    seen = []
    ensemble = SnapshotEnsemble(num_snapshots=4).train(
        make_data(), TASKS["binary"], stopping, on_epoch=lambda *_: seen.append(1)
    )
    assert len(seen) == 4  # nothing stops early
    assert ensemble.members[0].plan.recipe == replace(
        FIXED, optimizer=AdamW(lr=CosineCycles(0.02, cycles=4)), budget=ensemble.members[0].plan.recipe.budget
    )


def overfit(num_epochs=60):
    data = make_data(noise=1.5)
    fierce = replace(FIXED, optimizer=AdamW(lr=5e-2), budget=replace(FIXED.budget, max_epochs=num_epochs))
    return data, replace(fierce, methods=(EarlyStopping(patience=1),)), fierce


def test_a_recipe_that_stops_early_chooses_within_cycles_and_among_snapshots():
    data, stopping, fierce = overfit()
    whole = SnapshotEnsemble(num_snapshots=6).train(data, TASKS["binary"], fierce)
    losses = [record.val_loss for record in whole.members[-1].state.history]
    best = [10 * cycle + int(np.argmin(losses[10 * cycle : 10 * cycle + 10])) + 1 for cycle in range(6)]
    some = SnapshotEnsemble(num_snapshots=6).train(data, TASKS["binary"], stopping)
    assert [member.state.epoch for member in some.members] == best[: len(some.members)] != [10]
    plan, rows, said = some.members[0].plan, some.members[0].plan.val_rows, []
    for epoch in best:
        state = Fleet([plan], data).advance(epoch)[0]
        said.append(Predictor(plan.recipe, plan.task, state).predict(data.table[rows]).numpy())
    picked = np.stack(said)[:, np.arange(len(rows)), data.target[rows].astype(int)]
    averages = [-np.log(picked[: stop + 1].mean(0)).mean() for stop in range(6)]
    assert len(some.members) == np.argmin(averages) + 1 < 6
    assert some.notes == (f"The first {len(some.members)} of 6 snapshots are kept: more validate worse.",)
    assert whole.notes == ()


def test_a_killed_training_chooses_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("poise.fleet._fleet._SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    data, stopping, _ = overfit(12)
    strategy = SnapshotEnsemble(num_snapshots=2)
    straight = strategy.train(data, TASKS["binary"], stopping, engines=PLAIN)
    for cut in (2, 3, 2, 4):
        seen = []

        def stop(*_, cut=cut, seen=seen):
            seen.append(1)
            if len(seen) == cut:
                raise Stop

        with pytest.raises(Stop):
            strategy.train(data, TASKS["binary"], stopping, folder=tmp_path, engines=PLAIN, on_epoch=stop)
    resumed = strategy.train(data, TASKS["binary"], stopping, folder=tmp_path, engines=PLAIN)
    assert [one.state.epoch for one in resumed.members] == [one.state.epoch for one in straight.members]
    assert torch.equal(*(one.predictor.predict(data.table) for one in (straight, resumed)))
    with pytest.raises(ResumeError, match="another training"):
        strategy.train(data, TASKS["binary"], replace(stopping, methods=()), folder=tmp_path)


def test_a_training_that_does_not_stay_finite_keeps_the_snapshots_before(monkeypatch):
    data = make_data()
    plain = Fleet.advance

    def advance(self, until_epoch, **options):
        states = plain(self, until_epoch, **options)
        if until_epoch == 3:
            states[0].stopped = "non-finite"
        return states

    monkeypatch.setattr(Fleet, "advance", advance)
    ensemble = SnapshotEnsemble(num_snapshots=4).train(data, TASKS["binary"], FIXED)
    assert len(ensemble.members) == 2
    assert ensemble.notes == ("The training did not stay finite after 2 of 4 epochs: 2 of 4 snapshots.",)
