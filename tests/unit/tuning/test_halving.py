"""Who goes on, who leaves, and when it ends."""

import numpy as np
import pytest

from poise import ConfigError
from poise.recipe import AdamW, Recipe
from poise.tuning import Float, HalvingOptions, Proposer, Race, Space

from ._arenas import Curves

SPACE = Space(Recipe(optimizer=AdamW(lr=1e-3)), {"optimizer.lr": Float(1e-5, 1.0, log=True)})


def race(arena, seed=0, portfolio=None, **options):
    return Race(arena, Proposer(SPACE, portfolio=portfolio, seed=seed), HalvingOptions(**options))


def test_most_trials_leave_early_and_the_best_one_does_not():
    arena = Curves()
    trials = race(arena, num_trials=81, batch_size=27, eta=3).run()
    assert [one.number for one in trials] == list(range(81))
    best = min(trials, key=lambda one: arena.quality(one.recipe))
    assert best.end == "complete"
    assert best.epochs == 27
    assert {one.end for one in trials} == {"complete", "pruned"}
    assert arena.left == {one.number for one in trials if one.end == "pruned"}
    assert sum(arena.epochs.values()) * 6 < 81 * 27


def test_every_loss_is_the_best_so_far_at_its_rung():
    arena = Curves()
    for trial in race(arena, num_trials=12, batch_size=4).run():
        for epochs, loss in trial.rungs.items():
            assert loss == min(arena.curve(trial.number)[:epochs])


def test_a_race_is_the_same_again():
    first, second = (race(Curves(), num_trials=24).run() for _ in range(2))
    assert [(one.recipe, one.rungs, one.end) for one in first] == [(one.recipe, one.rungs, one.end) for one in second]
    other = race(Curves(), seed=1, num_trials=24).run()
    assert [one.recipe for one in first] != [one.recipe for one in other]


def test_as_many_train_to_the_end_as_were_asked_for():
    for wanted in (1, 3, 7):
        found = race(Curves(), num_trials=12, batch_size=4, eta=4, min_complete=wanted)
        found.run()
        assert len(found.complete) >= wanted
    few = race(Curves(), num_trials=2, min_complete=5)
    few.run()
    assert len(few.complete) == 2


def test_trials_that_fail_are_marked_and_never_go_on():
    arena = Curves(broken=(0, 5))
    trials = race(arena, num_trials=16).run()
    assert [one.number for one in trials if one.end == "failed"] == [0, 5]
    assert all(sum(number in call for call in arena.calls) == 1 for number in (0, 5))


def test_the_portfolio_comes_first_and_need_not_be_in_the_space():
    portfolio = {"inside": Recipe(optimizer=AdamW(lr=1e-2)), "outside": Recipe(optimizer=AdamW(lr=1e-2, beta1=0.5))}
    trials = race(Curves(), portfolio=portfolio, num_trials=6).run()
    assert [one.origin for one in trials[:3]] == ["inside", "outside", "TPESampler"]
    assert trials[0].params == {"optimizer.lr": 0.01}
    assert trials[1].params is None


def test_the_share_that_goes_on_follows_the_rank_correlation():
    aligned = race(Curves(), num_trials=24)
    aligned.run()
    assert aligned.eta(0) == 4
    generator = np.random.default_rng(0)

    class Noisy(Curves):
        def curve(self, number):
            noise = np.random.default_rng(number).normal(size=self.max_epochs)
            return (10 - np.arange(self.max_epochs) + 0.4 * noise * 10).tolist()[: self.epochs[number]]

    shuffled = race(Noisy(quality=lambda _: generator.random()), num_trials=24, batch_size=12)
    shuffled.run()
    assert shuffled.eta(0) < 4


def test_no_more_is_proposed_once_it_gains_nothing():
    class Flat(Curves):
        def curve(self, number):
            return [1.0] * self.epochs[number]

        def noise(self):
            return 0.1

    trials = race(Flat(), num_trials=400, batch_size=8, patience=2).run()
    assert 8 < len(trials) < 60


def test_without_time_nothing_begins_and_what_stands_is_pruned():
    left = iter([False, True])  # not asked before the first batch
    found = Race(Curves(), Proposer(SPACE), HalvingOptions(num_trials=99), out_of_time=lambda: next(left))
    trials = found.run()
    assert len(trials) == 16
    assert all(one.end for one in trials)


@pytest.mark.parametrize(
    "wrong", [{"num_trials": 0}, {"num_trials": 4, "eta": 7}, {"num_trials": 4, "batch_size": 0}, {"num_trials": 1.5}]
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError):
        HalvingOptions(**wrong)


def test_a_space_without_ranges_ends_with_its_portfolio():
    proposer = Proposer(Space(Recipe()), portfolio={"only": Recipe()})
    assert [one.origin for one in proposer.ask(1)] == ["only"]
    with pytest.raises(ConfigError, match="no ranges"):
        proposer.ask(1)


def test_when_time_ends_the_best_so_far_keep_what_they_have_learnt():
    left = iter([False, True])
    arena = Curves()
    found = Race(arena, Proposer(SPACE), HalvingOptions(num_trials=99, min_complete=3), out_of_time=lambda: next(left))
    found.run()
    assert len(found.best) == 3
    assert not {one.number for one in found.best} & arena.left
    assert len(arena.left) == len(found.trials) - 3
