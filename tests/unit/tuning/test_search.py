"""Search for the recipe of any torch model."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import poise
from poise import (
    AdamW,
    ConfigError,
    Cosine,
    DataError,
    Float,
    Int,
    OneOf,
    Recipe,
    ResumeError,
    Space,
    TrainingError,
    search,
)
from poise.methods import Dropout

from ._modules import BASE, SPACE, conv, cross_entropy, mlp, rows


def accuracy(outputs, y):
    return (outputs.argmax(1) == y).float().mean()


def found(factory=mlp, space=SPACE, **settings):
    settings = {
        "train": rows(90, 0),
        "val": rows(200, 1),
        "loss": cross_entropy,
        "trials": 6,
        "max_epochs": 4,
    } | settings
    return search(factory, space, **settings)


@pytest.fixture(scope="module")
def result():
    return found(test=rows(200, 2), metric=accuracy)


def test_it_finds_the_trial_with_the_lowest_loss(result):
    complete = [one for one in result.trials if one.end == "complete"]
    assert result.best is min(complete, key=lambda one: one.loss)
    assert result.recipe == result.best.recipe
    assert result.val_loss == pytest.approx(result.best.loss, rel=1e-5)
    assert [one.number for one in result.trials] == list(range(6))


def test_the_base_is_tried_first(result):
    assert result.trials[0].recipe == BASE
    assert result.trials[0].origin == "base"


def test_the_model_is_the_one_that_was_scored(result):
    assert not any(module.training for module in result.model.modules())
    with torch.no_grad():
        for seed, loss, metric in ((1, result.val_loss, result.val_metric), (2, result.test_loss, result.test_metric)):
            x, y = rows(200, seed)
            outputs = result.model(x)
            assert float(cross_entropy(outputs, y)) == pytest.approx(loss, rel=1e-5)
            assert float(accuracy(outputs, y)) == pytest.approx(metric)
        x, y = rows(90, 0)
        assert float(cross_entropy(result.model(x), y)) == pytest.approx(result.train_loss, rel=1e-5)
    assert result.gap == result.val_loss - result.train_loss


def test_the_regimen_can_be_undone(result):
    again = found()
    again.regimen.undo()
    assert [type(one) for one in again.model.modules()] == [type(one) for one in mlp().modules()]


def test_same_seed_same_result_and_another_seed_another(result):
    again, other = found(), found(seed=1)
    assert [one.recipe for one in again.trials] == [one.recipe for one in result.trials]
    assert [one.rungs for one in again.trials] == [one.rungs for one in result.trials]
    assert [one.rungs for one in other.trials] != [one.rungs for one in result.trials]


def test_engines_find_the_same(result):
    plain = found(engine="plain")
    assert plain.best.number == result.best.number
    for one, other in zip(plain.trials, result.trials, strict=True):
        assert list(one.rungs.values()) == pytest.approx(list(other.rungs.values()), rel=1e-3)
    assert plain.reasons == {}
    assert {one.engine for one in plain.trials} == {"plain"}
    assert any("stacked" in one.engine for one in result.trials)


def test_images_and_loaders():
    train, val = (
        DataLoader(TensorDataset(*rows(number, seed)), 32, shuffle=seed == 0) for number, seed in ((90, 0), (200, 1))
    )
    result = found(conv, train=train, val=val, trials=3, max_epochs=2)
    assert "convolutions on a CPU gain nothing" in str(result)
    again = found(conv, train=train, val=val, trials=3, max_epochs=2, engine="stacked")
    assert result.val_loss == pytest.approx(again.val_loss, rel=1e-4)


def test_it_is_better_than_its_worst(result):
    assert result.best.loss < max(one.loss for one in result.trials)


def test_progress_is_told():
    seen = []
    found(trials=3, max_epochs=1, progress=lambda trials: seen.append(len(trials)))
    assert set(seen) == {3}


def test_when_the_time_is_over_the_best_so_far_is_the_result():
    result = found(time_limit=1e-9)
    assert {one.end for one in result.trials} == {"pruned"}
    assert result.best is min(result.trials, key=lambda one: one.loss)
    with torch.no_grad():
        x, y = rows(200, 1)
        assert float(cross_entropy(result.model(x), y)) == pytest.approx(result.best.loss, rel=1e-5)


def test_a_portfolio_is_tried_after_the_base():
    from poise.methods import EMA

    mine = Recipe(methods=(EMA(decay=0.9),))
    result = found(portfolio={"mine": mine}, trials=2, max_epochs=1)
    assert [(one.origin, one.recipe) for one in result.trials] == [("base", BASE), ("mine", mine)]


def test_the_global_generator_stays_as_it_was():
    torch.rand(1)
    before = torch.get_rng_state()
    found(trials=2, max_epochs=1)
    assert torch.equal(before, torch.get_rng_state())


# Folders


def test_an_ended_search_gives_its_result_again(tmp_path, result):
    first = found(folder=tmp_path / "run", test=rows(200, 2), metric=accuracy)

    def no_training(trials):
        raise AssertionError

    again = found(folder=tmp_path / "run", test=rows(200, 2), metric=accuracy, progress=no_training)
    assert str(again) == str(first)
    assert again.test_loss == first.test_loss
    x, _ = rows(10, 5)
    with torch.no_grad():
        assert torch.equal(first.model(x), again.model(x))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_optuna_reads_what_was_tried(tmp_path):
    import optuna

    from poise.tuning import from_optuna

    result = found(folder=tmp_path)
    study = optuna.load_study(study_name="poise", storage=f"sqlite:///{tmp_path}/study.db")
    assert [one.user_attrs["number"] for one in study.trials if one.value == result.best.loss] == [result.best.number]
    assert len(study.trials) == len(result.trials)
    assert result.recipe in from_optuna(study, SPACE).values()


@pytest.mark.parametrize("engine", ["plain", "auto"])
def test_an_interrupted_search_goes_on(tmp_path, engine):
    straight, calls = found(engine=engine), []

    def interrupted(trials):
        calls.append(len(trials))
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        found(folder=tmp_path, engine=engine, progress=interrupted)
    assert list((tmp_path / "checkpoints").glob("trial-*.json"))
    again = found(folder=tmp_path, engine=engine)
    assert again.best.number == straight.best.number
    for one, other in zip(again.trials, straight.trials, strict=True):
        assert one.rungs == pytest.approx(other.rungs, rel=1e-5)


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from unit.tuning.test_search import found
found(folder=sys.argv[2], trials=12, max_epochs=9, engine="plain")
"""


@pytest.mark.slow
def test_a_killed_search_goes_on(tmp_path):
    tests = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tests), str(tmp_path)])
    while not list((tmp_path / "checkpoints").glob("trial-*.json")) and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    kept = {one.name: one.read_bytes() for one in (tmp_path / "checkpoints").glob("trial-*.json")}
    assert kept
    again, straight = (found(folder=folder, trials=12, max_epochs=9, engine="plain") for folder in (tmp_path, None))
    assert [one.rungs for one in again.trials] == [one.rungs for one in straight.trials]
    assert again.best.number == straight.best.number


@pytest.mark.parametrize(
    "changed",
    [{"seed": 1}, {"max_epochs": 3}, {"train": rows(90, 7)}, {"factory": lambda: nn.Sequential(nn.Linear(6, 2))}],
    ids=["seed", "epochs", "rows", "model"],
)  # fmt: skip
def test_another_search_in_the_folder_is_refused(tmp_path, changed):
    found(folder=tmp_path, trials=2, max_epochs=2)
    with pytest.raises(ResumeError, match="started with other options"):
        found(**({"folder": tmp_path, "trials": 2, "max_epochs": 2} | changed))


# Bad input

X, Y = rows(20, 0)


@pytest.mark.parametrize(
    ("changed", "error", "text"),
    [
        ({"space": Recipe()}, ConfigError, "`space` must be Space"),
        ({"space": Space(BASE, {})}, ConfigError, "no ranges"),
        ({"space": Space(BASE, {"network.width": Int(8, 16)})}, ConfigError, r"'network\.width' has no effect"),
        ({"space": Space(BASE, {"budget.max_epochs": Int(8, 16)})}, ConfigError, "Give `max_epochs`"),
        ({"trials": 0}, ConfigError, "`trials` must be an integer in"),
        ({"max_epochs": 0}, ConfigError, "`max_epochs` must be an integer in"),
        ({"time_limit": 0}, ConfigError, "`time_limit` must be a number in"),
        ({"engine": "fast"}, ConfigError, "`engine` must be one of 'auto', 'plain', 'stacked'"),
        ({"factory": lambda: 3}, ConfigError, "`factory` must return"),
        ({"loss": lambda outputs, y: 3.0}, ConfigError, "`loss` must return a scalar tensor"),
        ({"loss": lambda outputs, y: outputs}, ConfigError, r"a tensor of shape \(8, 2\)"),
        ({"loss": lambda outputs, y: torch.tensor(1.0)}, ConfigError, "`loss` has no gradient"),
        ({"loss": lambda outputs, y: outputs.reshape(7)}, TrainingError, "failed in the first score"),
        ({"train": (X, Y[:3])}, DataError, "same rows"),
        ({"train": (torch.randn(20, 5), Y)}, DataError, "Sequential fails on the example"),
        ({"val": 3}, ConfigError, "`val` must be a pair"),
        ({"metric": lambda outputs, y: 1 / 0}, TrainingError, "failed in the last score: ZeroDivisionError"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_said(changed, error, text):
    with pytest.raises(error, match=text):
        found(**({"trials": 1, "max_epochs": 1} | changed))


def test_batch_sizes_of_a_loader_are_its_own():
    space = Space(BASE, {"budget.batch_size": Int(8, 16)})
    with pytest.raises(ConfigError, match="batches are as large as the DataLoader makes them"):
        found(space=space, train=DataLoader(TensorDataset(X, Y), 4))


def test_rows_that_choose_are_not_those_that_teach():
    both = rows(20, 0)
    with pytest.raises(ConfigError, match="must be different rows"):
        found(train=both, val=both)


def test_all_trials_failing_is_said():
    def nan(outputs, y):
        return cross_entropy(outputs, y) * float("nan")

    with pytest.raises(TrainingError, match="None of 2 trials ended an epoch with finite numbers"):
        found(loss=nan, trials=2)


def test_the_table_says_which_rows_chose(result):
    text = str(result)
    assert text.splitlines()[0].split() == ["trial", "end", "epochs", "val", "loss", "engine", "seconds", "recipe"]
    assert text.splitlines()[1].startswith(str(result.best.number))
    assert "The validation rows chose it" in text
    assert f"Test loss {result.test_loss:.4g}" in text


def test_regression_needs_nothing_else():
    x = torch.linspace(-1, 1, 100).reshape(-1, 1)
    space = Space(
        Recipe(optimizer=AdamW(lr=Cosine(1e-2))),
        {"drop": OneOf(None, Dropout(p=0.1)), "optimizer.lr": Float(1e-3, 0.1)},
    )
    result = search(
        lambda: nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)), space, train=(x[::2], x[::2].square()),
        val=(x[1::2], x[1::2].square()), loss=nn.functional.mse_loss, trials=3, max_epochs=3,
    )  # fmt: skip
    assert result.val_loss > 0
    assert isinstance(result, poise.SearchResult)
