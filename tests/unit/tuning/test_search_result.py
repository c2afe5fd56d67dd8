"""What is written down of a search."""

from __future__ import annotations

import json
import math

from torch import nn

from poise import Recipe, SearchResult
from poise.methods import Dropout
from poise.tuning import Trial
from poise.tuning._search_result import trial_numbers, trial_of


def make(**changes):
    trials = (
        Trial(0, Recipe(), "base", None, {1: 0.5}, end="pruned", engine="plain", seconds=1.0),
        Trial(
            1, Recipe(methods=(Dropout(p=0.25),)), "TPESampler", {"Dropout.p": 0.25}, {1: 0.6, 3: 0.4},
            end="complete", engine="stacked", seconds=2.0,
        ),
        Trial(2, Recipe(), "TPESampler", {}, end="failed", engine="plain", seconds=0.1),
    )  # fmt: skip
    settings = {"train_loss": 0.3, "val_loss": 0.4, "reasons": {0: "of this", 2: "of this"}} | changes
    return SearchResult(trials[1].recipe, nn.Identity(), None, trials[1], trials, **settings)


def test_trials_go_to_json_and_back():
    for trial in make().trials:
        assert vars(trial_of(json.loads(json.dumps(trial_numbers(trial))))) == vars(trial)


def test_the_best_comes_first_and_failures_last():
    lines = str(make()).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["1", "0", "2"]
    assert lines[3].split()[3] == "-"
    assert lines[1].endswith("lr 0.001, Dropout(p=0.25)")
    assert lines[2].endswith("lr 0.001")


def test_recipes_are_told_in_short():
    from poise import AdamW, Linear
    from poise.methods import BatchNorm
    from poise.tuning._search_result import _in_short

    recipe = Recipe(methods=(BatchNorm(), Dropout(p=Linear(0.2, end=0.0))), optimizer=AdamW(lr=0.012345))
    assert _in_short(recipe) == "lr 0.0123, BatchNorm, Dropout(p=Linear(start=0.2, end=0.0))"


def test_scores_say_whose_they_are():
    text = str(make(test_loss=0.45, val_metric=0.9, test_metric=0.8))
    assert "training loss 0.3, validation loss 0.4 (metric 0.9). The validation rows chose it" in text
    assert "Test loss 0.45 (metric 0.8), of rows that nothing looked at before." in text
    assert "Test loss" not in str(make())


def test_reasons_are_told_once():
    assert str(make()).splitlines()[-1] == "Trained alone: 2 trials, since of this."


def test_the_gap():
    assert math.isclose(make().gap, 0.1)
