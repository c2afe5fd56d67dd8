"""From trainings to effects."""

import numpy as np
import polars as pl
import pytest

from poise.data import infer_schema
from poise.train import Binary, Dataset, Regression
from poise.tuning._ablation_design import make_design
from poise.tuning._ablation_judge import constant_loss, make_effects, open_arms, plan_looks
from poise.tuning._looks import Looks

from ._ablations import TINY, make_run

LOOKS = Looks((5, 10), 0.25)


def make_runs(losses, num_blocks=5, **changes):
    """Trainings of arms with the mean test losses `losses`, noise of the block and little of their own."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=num_blocks)
    return [
        make_run(arm, block, float(loss + shared[block] + 0.01 * rng.normal()), **changes)
        for arm, loss in losses.items()
        for block in range(num_blocks)
    ]


def test_effects_are_paired_differences():
    losses = {"all": 1.0, "none": 3.0, "without Dropout": 2.5, "without WeightDecay": 0.5}
    effects = {
        one.name: one for one in make_effects(make_design(TINY, "leave-one-out"), make_runs(losses), LOOKS, 5, 0.1)
    }
    expected = {"whole recipe": -2.0, "Dropout": -1.5, "WeightDecay": 0.5}
    for name, value in expected.items():
        assert effects[name].loss.value == pytest.approx(value, abs=0.05)
        assert effects[name].loss.high - effects[name].loss.low < 0.5  # the noise that arms share is gone
        assert effects[name].gap.value == pytest.approx(value, abs=0.05)
    assert {name: one.verdict for name, one in effects.items()} == {
        "whole recipe": "helps",
        "Dropout": "helps",
        "WeightDecay": "hurts",
    }
    assert effects["Dropout"].level == pytest.approx(0.02)  # both were decided at the first look


def test_an_interaction_is_what_the_two_do_beyond_the_sum():
    losses = {"all": 1.0, "none": 5.0, "without Dropout": 2.0, "without WeightDecay": 4.0}
    runs = make_runs(losses)
    effects = make_effects(make_design(TINY, "pairs"), runs, LOOKS, 5, 0.1)
    pair = next(one for one in effects if one.kind == "pair")
    assert pair.name == "Dropout × WeightDecay"
    assert pair.loss.value == pytest.approx(1 - 2 - 4 + 5, abs=0.05)
    assert (pair.steps, pair.seconds, pair.reached_with) == (None, None, 0)


def test_only_arms_of_what_is_open_go_on_with_the_bare_one():
    design = make_design(TINY, "leave-one-out")
    losses = {"all": 1.0, "none": 3.0, "without Dropout": 2.5, "without WeightDecay": 1.0}
    runs = make_runs(losses)
    effects = make_effects(design, runs, LOOKS, 5, 1e-9)
    assert open_arms(design, effects) == ["all", "none", "without WeightDecay"]
    assert open_arms(design, make_effects(design, runs, LOOKS, 5, 0.9)) == []


def test_arms_that_were_left_out_leave_a_decision_alone():
    design = make_design(TINY, "leave-one-out")
    losses = {"all": 1.0, "none": 3.0, "without Dropout": 2.5, "without WeightDecay": 1.0}
    first = make_runs(losses)
    more = [
        make_run(arm, block, 1.0 + block % 3)
        for arm in ("all", "none", "without WeightDecay")
        for block in range(5, 10)
    ]
    early = make_effects(design, first, LOOKS, 5, 1e-9)
    late = make_effects(design, first + more, LOOKS, 10, 1e-9)
    assert early[1] == late[1]
    assert late[2].num_blocks == 10


def test_failed_trainings_do_not_count_and_one_difference_says_nothing():
    design = make_design(TINY, "leave-one-out")
    runs = make_runs({"all": 1.0, "none": 3.0, "without WeightDecay": 1.0})
    runs += [make_run("without Dropout", block, 2.0 if block == 0 else None, val_loss=None) for block in range(5)]
    effect = make_effects(design, runs, LOOKS, 5, 0.1)[1]
    assert (effect.verdict, effect.loss, effect.gap, effect.steps, effect.num_blocks) == (
        "cannot tell",
        None,
        None,
        None,
        1,
    )


def test_time_to_the_target_is_a_ratio_of_restricted_means():
    design = make_design(TINY, "leave-one-out")
    runs = [
        make_run(arm, block, 1.0, reached_epoch=4, reached_seconds=0.4) for arm in ("all", "none") for block in range(5)
    ]
    runs += [
        make_run("without Dropout", block, 1.0, **({} if block == 0 else {"reached_epoch": 8, "reached_seconds": 0.8}))
        for block in range(5)
    ]
    effect = make_effects(design, runs, LOOKS, 5, 0.1)[1]
    assert (effect.reached_with, effect.reached_without) == (5, 4)
    assert effect.steps.value == pytest.approx(4 / np.mean([20, 8, 8, 8, 8]))
    assert effect.seconds.value == pytest.approx(0.4 / np.mean([2.0, 0.8, 0.8, 0.8, 0.8]))
    assert effect.steps.low < effect.steps.value < effect.steps.high < 1.2


def test_looks_follow_the_stages():
    assert plan_looks(20, 5).counts == (5, 10, 15, 20)
    assert plan_looks(12, 5).counts == (5, 10, 12)
    assert plan_looks(3, 5).counts == (3,)
    assert plan_looks(5, 5).ratio == 0.25


def test_the_loss_of_a_constant_prediction():
    table = pl.DataFrame({"x": range(4)})
    data = Dataset(table, infer_schema(table), np.array([0.0, 0, 0, 1]), np.array([1.0, 1, 1, 3]))
    assert constant_loss(data, Binary()) == pytest.approx(np.log(2))
    assert constant_loss(data, Regression()) == 1
