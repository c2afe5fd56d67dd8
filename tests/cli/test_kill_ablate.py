"""`kill -9` during an ablation: the experiment comes to the same effects, and no finished stage is trained again."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ._tables import write_table

RECIPE = """
[optimizer]
lr = { kind = "Constant", start = 1e-3 }
[budget]
max_epochs = 60
batch_size = 4
[network]
width = 16
depth = 2
[[methods]]
kind = "Dropout"
p = 0.3
[[methods]]
kind = "EMA"
decay = 0.99
"""
KILLS = 5


def start(folder: Path, out: str, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "poise", "ablate", "data.csv", "--target", "churn", "--recipe", "recipe.toml"]
    return subprocess.Popen(
        [*command, "--blocks", "10", "--margin", "1e-9", "--out", out, *options],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_training(process: subprocess.Popen) -> bool:
    """Whether the end of a training was reported, or the process has ended without one."""
    return any(line.startswith("blocks") for line in process.stderr)


def found(folder: Path) -> list[tuple]:
    """What does not depend on the clock."""
    plain = json.loads((folder / "result.json").read_bytes())
    runs = [(one["arm"], one["block"], one["test_loss"], one["train_loss"], one["epochs"]) for one in plain["runs"]]
    return [*runs, *((one["name"], one["verdict"], one["loss"], one["steps"]) for one in plain["effects"])]


@pytest.mark.slow
def test_killed_ablations_come_to_the_same_effects(tmp_path):
    write_table(tmp_path / "data.csv", num_rows=200)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    whole = start(tmp_path, "whole")
    assert wait_for_training(whole)
    began = time.monotonic()
    whole.communicate()
    assert whole.returncode == 0
    seconds, moments = time.monotonic() - began, random.Random(0)
    num_killed = 0
    for _ in range(KILLS):
        process = start(tmp_path, "killed", "--resume")
        if wait_for_training(process):
            time.sleep(moments.uniform(0, seconds * 0.3))
        num_killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    last = start(tmp_path, "killed", "--resume")
    last.communicate()
    assert last.returncode == 0
    assert num_killed >= 2
    assert found(tmp_path / "killed") == found(tmp_path / "whole")
    left = sorted(path.name for path in (tmp_path / "killed").iterdir())
    assert left == ["config.toml", "report.html", "result.json"]
