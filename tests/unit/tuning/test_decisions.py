"""Verdicts: what decides them, that they stay, and how often they are false."""

import numpy as np
import pytest

from poise.tuning._decisions import decide
from poise.tuning._looks import Looks

LOOKS = Looks((5, 10, 15, 20), 0.25)


def draw(rng, effect, num_blocks=20, ratio=0.25):
    """Differences of blocks that share rows: variance 1, correlation ratio / (1 + ratio)."""
    shared = ratio / (1 + ratio)
    return effect + np.sqrt(shared) * rng.normal() + np.sqrt(1 - shared) * rng.normal(size=num_blocks)


def verdicts(differences, seen=20, margin=1.0, looks=LOOKS):
    return {name: one.verdict for name, one in decide(differences, seen, looks, margin=margin).items()}


def test_clear_effects_are_told_apart():
    rng = np.random.default_rng(0)
    noise = {name: 0.1 * rng.normal(size=20) for name in "abc"}
    found = verdicts({"good": noise["a"] - 5, "bad": noise["b"] + 5, "idle": noise["c"]})
    assert found == {"good": "helps", "bad": "hurts", "idle": "no effect"}


def test_noise_cannot_tell():
    assert verdicts({"a": np.random.default_rng(1).normal(size=20)}, margin=0.1) == {"a": "cannot tell"}


def test_no_difference_at_all_is_no_effect():
    found = decide({"a": np.zeros(20)}, 5, LOOKS, margin=1e-6)["a"]
    assert (found.verdict, found.low, found.high, found.num_blocks) == ("no effect", 0, 0, 5)


def test_a_sure_effect_that_is_too_small_to_matter_is_none():
    values = 0.1 + 0.001 * np.random.default_rng(7).normal(size=20)
    assert verdicts({"a": values}, margin=0.2) == {"a": "no effect"}
    assert verdicts({"a": values}, margin=0.01) == {"a": "hurts"}


def test_an_interval_agrees_with_its_verdict():
    rng = np.random.default_rng(2)
    for _ in range(50):
        family = {str(number): draw(rng, rng.normal(scale=2)) for number in range(4)}
        for one in decide(family, 20, LOOKS, margin=1.5).values():
            expected = {"helps": one.high < 0, "hurts": one.low > 0, "no effect": max(-one.low, one.high) < 1.5}
            assert expected.get(one.verdict, one.low <= 0 <= one.high)


def test_a_decision_stays_whatever_comes_later():
    values = np.concatenate([np.linspace(-9, -8, 10), np.full(10, 30.0)])
    early, late = (decide({"a": values}, seen, LOOKS, margin=1.0)["a"] for seen in (10, 20))
    assert early == late
    assert early.verdict == "helps"


def test_blocks_that_were_not_seen_yet_do_not_count():
    values = np.concatenate([np.linspace(-1, 1, 10), np.full(10, -90.0)])
    assert verdicts({"a": values}, seen=10, margin=0.01) == {"a": "cannot tell"}


def test_missing_blocks_are_left_out():
    values = np.linspace(-9, -8, 20)
    holes = values.copy()
    holes[[3, 7]] = np.nan
    found = decide({"a": holes}, 20, Looks((20,), 0.25), margin=1.0)["a"]
    assert found.num_blocks == 18
    assert found.value == pytest.approx(np.nanmean(holes))
    assert decide({"a": np.full(20, np.nan)}, 20, LOOKS, margin=1.0) == {}


def test_an_effect_that_is_found_passes_its_share_on():
    rng = np.random.default_rng(3)
    weak = rng.normal(size=20)
    weak = (weak - weak.mean()) / weak.std(ddof=1)
    looks = Looks((20,), 0.25)
    # Between the intervals at 4 % and at 4 % / 2.
    weak += -(looks.critical([20], 0.04) + looks.critical([20], 0.02)) / 2 * looks.spread(weak)
    alone = verdicts({"weak": weak, "idle": weak - weak.mean()}, looks=looks, margin=1e-9)
    helped = verdicts({"weak": weak, "strong": weak - 50}, looks=looks, margin=1e-9)
    assert alone["weak"] == "cannot tell"
    assert helped == {"weak": "helps", "strong": "helps"}


def test_no_effect_passes_nothing_on():
    rng = np.random.default_rng(4)
    family = {"idle": 1e-6 * rng.normal(size=20), "noise": rng.normal(size=20)}
    found = decide(family, 20, LOOKS, margin=0.01)
    assert found["idle"].verdict == "no effect"
    assert found["noise"].level == pytest.approx(0.02)


def test_false_claims_are_rare_and_strong_effects_are_found():
    rng, num_families = np.random.default_rng(5), 400
    false = found = 0
    for _ in range(num_families):
        family = {name: draw(rng, effect) for name, effect in (("-", -3.0), ("+", 3.0), ("0", 0), ("1", 0), ("2", 0))}
        said = verdicts(family, margin=0.5)
        found += said["-"] == "helps" and said["+"] == "hurts"
        false += any(said[name] in ("helps", "hurts") for name in "012") or said["-"] in ("hurts", "no effect")
    assert found >= 0.95 * num_families
    assert false <= 0.05 * num_families


def test_intervals_hold_at_every_look():
    rng, missed = np.random.default_rng(6), 0
    for _ in range(400):
        values = draw(rng, 0.7)
        found = [decide({"a": values}, seen, LOOKS, margin=1e-9)["a"] for seen in LOOKS.counts]
        missed += any(not one.low <= 0.7 <= one.high for one in found)
    assert missed <= 0.06 * 400
