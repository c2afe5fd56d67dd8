"""`kill -9` and Ctrl-C while a fleet trains: it goes on to the same bits, and nothing is left over."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from poise.train import load_state

SCRIPT = """
import sys
from pathlib import Path

import numpy as np
import polars as pl
import torch

from poise.data import infer_schema
from poise.fleet import Fleet, default_engines
from poise.methods import EMA, BatchNorm, Dropout, LayerNorm
from poise.recipe import AdamW, Budget, Cosine, Network, Recipe
from poise.train import Binary, Dataset, Plan

torch.set_num_threads(1)
rng = np.random.default_rng(0)
x = rng.normal(size=(200, 3))
table = pl.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2]})
data = Dataset(table, infer_schema(table), (x[:, 0] > x[:, 1]).astype(float), np.ones(200))


def plan(index):
    norm = (BatchNorm(), LayerNorm())[index % 2]
    network = Network(width=16 + 8 * (index % 4), depth=1 + index % 3, residual=index % 2 == 1)
    recipe = Recipe((norm, Dropout(p=0.2), EMA(decay=0.9)), AdamW(lr=Cosine(0.01)), Budget(150, 16), network)
    return Plan(f"v{index}", recipe, Binary(), np.arange(150), np.arange(150, 200), seed=index)


import poise.fleet._fleet as module
module._SECONDS_BETWEEN_CHECKPOINTS = 0.02
fleet = Fleet([plan(index) for index in range(16)], data, folder=Path(sys.argv[1]), engines=default_engines(2))
assert {choice.engine.name for choice in fleet.choices} == {"compiled"}
print("ready", sum(state.epoch for state in fleet.states), flush=True)
fleet.run()
print("done", flush=True)
"""
KILLS = 20


def start(folder, name):
    command = [sys.executable, "-c", SCRIPT, name]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until_ready(process):
    """Epochs that were done before."""
    line = process.stdout.readline().split()
    assert line[:1] == ["ready"], process.communicate()[1]
    return int(line[1])


def finish(folder, name):
    """Run to the end; returns the epochs done before and the seconds from then on."""
    process = start(folder, name)
    before = wait_until_ready(process)
    began = time.monotonic()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.split() == ["done"]
    return before, time.monotonic() - began


def files_of(folder):
    """Names without the digests, which see the seconds that epochs took."""
    return sorted(re.sub(r"-[0-9a-f]{16}\.", ".", path.name) for path in folder.iterdir())


def assert_same_bits(one, other):
    assert files_of(one) == files_of(other)
    assert len(files_of(one)) == 1 + 2 * 16  # fleet.json; for each plan, numbers and tensors
    for index in range(16):
        first, second = (load_state(folder, f"plan-{index}") for folder in (one, other))
        assert first.tensors.keys() == second.tensors.keys()
        for name, tensor in first.tensors.items():
            assert torch.equal(tensor, second.tensors[name]), (index, name)
        untimed = [[replace(epoch, seconds=0.0) for epoch in state.history] for state in (first, second)]
        assert untimed[0] == untimed[1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run and the seconds that it trained."""
    folder = tmp_path_factory.mktemp("fleet")
    _, seconds = finish(folder, "whole")
    return folder, seconds


@pytest.mark.slow
def test_a_killed_fleet_of_16_goes_on_to_the_same_bits(whole):
    folder, seconds = whole
    moments, num_killed, done = random.Random(0), 0, [0]
    for _ in range(KILLS):
        process = start(folder, "killed")
        done.append(wait_until_ready(process))
        time.sleep(moments.uniform(0, seconds * 2 / KILLS))
        num_killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    before, _ = finish(folder, "killed")
    done.append(before)
    assert num_killed >= KILLS // 2
    assert done == sorted(done)  # what was saved is never lost
    assert any(0 < number < 16 * 150 for number in done)
    assert_same_bits(folder / "whole", folder / "killed")
    assert not [path for path in (folder / "killed").rglob("*") if ".tmp" in path.name]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGINT for one process there")
def test_ctrl_c_ends_a_fleet_soon_and_it_goes_on_to_the_same_bits(whole):
    folder, seconds = whole
    process = start(folder, "interrupted")
    assert wait_until_ready(process) == 0
    time.sleep(min(0.5, seconds / 4))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode not in (0, None)  # it ended by the interrupt and not at the end of its work
    assert "KeyboardInterrupt" in err
    before, _ = finish(folder, "interrupted")
    assert 0 < before < 16 * 150
    assert_same_bits(folder / "whole", folder / "interrupted")
