"""`kill -9` while a table is searched: no trial is lost, none trains twice to its end, and the choice is the same."""

import random
import subprocess
import sys
import time
from collections import Counter

import optuna
import pytest

SCRIPT = """
import sys
from pathlib import Path

import numpy as np
import polars as pl
import torch

import poise.fleet._fleet as module
from poise import Float, OneOf, Space
from poise.data import infer_schema
from poise.methods import Dropout, EarlyStopping, LayerNorm
from poise.recipe import AdamW, Budget, Network, Recipe
from poise.train import Binary, Dataset
from poise.tuning import StudyFile, TableSearchOptions, search_table

torch.set_num_threads(2)
module._SECONDS_BETWEEN_CHECKPOINTS = 0.02
rng = np.random.default_rng(0)
x = rng.normal(size=(300, 3))
table = pl.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2]})
data = Dataset(table, infer_schema(table), (x[:, 0] > x[:, 1]).astype(float), np.ones(300))
base = Recipe((EarlyStopping(),), AdamW(lr=0.01), Budget(60, 16), Network(width=16, depth=2))
space = Space(base, {
    "norm": OneOf(None, LayerNorm()),
    "dropout": OneOf(None, Dropout(p=0.2)),
    "Dropout.p": Float(0.05, 0.5),
    "optimizer.lr": Float(1e-3, 0.1, log=True),
    "network.width": OneOf(8, 16, 32),
})
folder = Path(sys.argv[1])
folder.mkdir(exist_ok=True)
epochs = (folder / "epochs.txt").open("a")


def note(index, plan, state):
    epochs.write(f"{plan.name}: {state.epoch}\\n")
    epochs.flush()


print("ready", flush=True)
study = StudyFile(folder / "study.db", space)
options = TableSearchOptions(
    space=space, portfolio={"base": base}, folder=folder, on_epoch=note, on_trials=study.update
)
found = search_table(data, Binary(), options)
print(found.choice.weights.tolist(), [one.rungs for one in found.trials], found.predictor.predict(table)[:20].tolist())
"""
KILLS = 15


def start(folder):
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n", process.communicate()[1]
    return process


def finish(folder):
    with start(folder) as process:
        out, err = process.communicate(timeout=300)
    assert out, err
    return out


def numbers_in(folder):
    try:
        study = optuna.load_study(study_name="poise", storage=f"sqlite:///{folder / 'study.db'}")
    except KeyError:
        return []  # killed before the study was begun
    assert {one.state.name for one in study.trials} <= {"COMPLETE", "PRUNED"}
    return [one.user_attrs["number"] for one in study.trials]


@pytest.mark.slow
def test_a_search_that_is_killed_again_and_again_ends_as_one_that_is_not(tmp_path):
    straight = finish(tmp_path / "straight")
    whole = (tmp_path / "straight" / "epochs.txt").read_text().splitlines()
    folder, generator, kept = tmp_path / "killed", random.Random(0), []
    for _ in range(KILLS):
        with start(folder) as process:
            time.sleep(generator.uniform(0.05, 1.5))
            process.kill()
        if (folder / "study.db").exists():
            now = numbers_in(folder)
            assert set(kept) <= set(now), "a trial that had ended was lost"
            kept = now
    assert finish(folder) == straight
    assert sorted(numbers_in(folder)) == list(range(32))
    # What came after the last checkpoint is trained again, so an end may be seen twice around a kill, never more.
    ends = Counter(line for line in (folder / "epochs.txt").read_text().splitlines() if line.endswith(": 60"))
    assert set(ends) == {line for line in whole if line.endswith(": 60")}
    assert sum(ends.values()) <= len(ends) + 2 * KILLS
    assert max(ends.values()) <= 2
    assert not list(folder.rglob("*.tmp*"))
