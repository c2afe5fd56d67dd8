"""`kill -9` at random moments: whatever was cut off, the run ends with the same weights."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

RECIPE = """
[budget]
max_epochs = 600
batch_size = 2
[network]
width = 16
depth = 2
[[methods]]
kind = "BatchNorm"
[[methods]]
kind = "Dropout"
p = 0.3
[[methods]]
kind = "EMA"
decay = 0.99
"""
KILLS = 10


def start(folder: Path, out: str, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "poise", "fit", "data.csv", "--target", "z", "--recipe", "recipe.toml"]
    return subprocess.Popen(
        [*command, "--out", out, "--time", "600", *options],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_training(process: subprocess.Popen) -> bool:
    """Whether the first epoch was reported, or the process has ended without one."""
    return any("epoch" in line for line in process.stderr)


@pytest.mark.slow
def test_killed_runs_go_on_to_the_same_weights(tmp_path):
    pl.DataFrame({"x": range(150), "y": [i % 9 for i in range(150)], "z": ["a", "b", "b"] * 50}).write_csv(
        tmp_path / "data.csv"
    )
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
    assert last.communicate() is not None
    assert last.returncode == 0
    assert num_killed >= 3
    same = [(tmp_path / run / "bundle" / "weights.safetensors").read_bytes() for run in ("whole", "killed")]
    assert same[0] == same[1]
    left = {path.relative_to(tmp_path / "killed").as_posix() for path in (tmp_path / "killed").rglob("*")}
    assert left == {path.relative_to(tmp_path / "whole").as_posix() for path in (tmp_path / "whole").rglob("*")}
