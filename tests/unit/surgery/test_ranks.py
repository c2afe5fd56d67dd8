"""Two processes with rows of their own end with the statistics of all rows."""

import json
import subprocess
import sys

import pytest
import torch

from poise.surgery._recalibration._ranks import Ranks

SCRIPT = """
import json, sys
import torch
from torch import distributed, nn
from poise import DataError
from poise.surgery import recalibrate

rank = int(sys.argv[1])
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)

def network():
    torch.manual_seed(0)
    first = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout()
    return nn.Sequential(*first, nn.Linear(8, 2), nn.BatchNorm1d(2))

def statistics(network):
    return [value.tolist() for name, value in network.double().named_buffers() if "running" in name]

rows = torch.randn(53, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 10
parts = rows[:40].split(16) if rank == 0 else rows[40:].split(12)
found = {}
for name, sequential in (("in_turn", True), ("at_once", False)):
    model = network().double()
    report = recalibrate(model, parts, sequential=sequential)
    found[name] = statistics(model), [one.count for one in report.layers]
model = nn.parallel.DistributedDataParallel(network().double())
recalibrate(model, parts)
found["wrapped"] = statistics(model)
model = network().double()
recalibrate(model, parts, synchronize=False)
found["alone"] = statistics(model)
own = network().double()
recalibrate(own, [rows], synchronize=False)
found["whole"] = statistics(own)
model = network().double()
before = statistics(model)
try:
    recalibrate(model, parts if rank == 0 else [rows[:4] / 0])
except DataError as error:
    found["error"] = str(error)
found["unchanged"] = statistics(model) == before
print(json.dumps(found))
distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    meeting = str(tmp_path_factory.mktemp("ranks") / "meeting")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = [subprocess.Popen([sys.executable, "-c", SCRIPT, str(rank), meeting], **pipes) for rank in range(2)]
    answers = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0, 0], answers
    return [json.loads(out.splitlines()[-1]) for out, _ in answers]


@pytest.mark.slow
def test_both_have_the_statistics_of_all_rows(ranks):
    for one in ranks:
        for values, expected in zip(one["in_turn"][0], one["whole"], strict=True):
            torch.testing.assert_close(torch.tensor(values), torch.tensor(expected), rtol=1e-6, atol=1e-6)
        assert one["in_turn"][1] == [53, 53]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["in_turn", "at_once", "wrapped"])
def test_both_have_the_same_bits(ranks, way):
    assert ranks[0][way] == ranks[1][way]
    assert ranks[0]["wrapped"] == ranks[0]["in_turn"][0]


@pytest.mark.slow
def test_alone_each_has_its_own(ranks):
    assert ranks[0]["alone"] != ranks[1]["alone"]
    assert ranks[0]["alone"] != ranks[0]["whole"]


@pytest.mark.slow
def test_a_failure_on_one_ends_both_and_changes_neither(ranks):
    assert ranks[0]["error"].startswith("Another process failed: It is given NaN or infinite values.")
    assert "(in rank 1)" in ranks[0]["error"]
    assert ranks[1]["error"].startswith("It is given NaN or infinite values. (in layer '1', batch 0)")
    assert [one["unchanged"] for one in ranks] == [True, True]


def test_one_process_needs_no_group():
    ranks = Ranks.of(synchronize=True)
    assert ranks.number == 1
    assert ranks.together(lambda: 3) == [3]
