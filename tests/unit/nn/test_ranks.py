"""Two processes with parts of a batch, of unequal sizes, compute what one process does with the whole."""

import json
import subprocess
import sys

import pytest
import torch

from poise.nn import BatchNorm
from poise.nn._ranks import has_ranks, sum_over_ranks

CASES = {
    "plain": ({}, False), "guard": ({"guard": True, "debias": True}, False), "renorm": ({"renorm": (1.2, 0.5)}, False),
    "accumulate": ({"accumulate": 2}, False), "domains": ({"num_domains": 2}, False), "masked": ({}, True),
}  # fmt: skip
SIZES = {"unequal": (7, 4), "single": (10, 1), "empty": (11, 0)}

CODE = """
import torch
from torch import nn
from poise.nn import BatchNorm

def compute(settings, masked, x, mask, domain, synchronized):
    layer = BatchNorm(3, synchronized=synchronized, **settings).double()
    layer.weight.data, layer.bias.data = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3]], dtype=torch.float64)
    found = []
    for shift in (0.0, 1.0):
        rows = (x + shift).requires_grad_()
        y = layer(rows, mask=mask if masked else None, domain=domain if "num_domains" in settings else None)
        weights = [rows, layer.weight, layer.bias]
        grads = torch.autograd.grad((y.sin() * rows.detach()).sum(), weights, create_graph=True)
        (second,) = torch.autograd.grad(grads[0].square().sum(), rows)
        found.append([one.tolist() for one in (y, *grads, second)])
    return found, [one.double().tolist() for one in layer.buffers()]

def batch():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(11, 3, 2, generator=generator, dtype=torch.float64) + 5
    return x, torch.rand(11, 2, generator=generator) < 0.7, torch.randint(2, (11,), generator=generator)
"""
SCRIPT = (
    CODE
    + """
import json, sys
from torch import distributed
rank, meeting, cases, sizes = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4])
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method="file://" + meeting, rank=rank, world_size=2)
found = {}
for case, (settings, masked) in cases.items():
    settings = {name: tuple(one) if isinstance(one, list) else one for name, one in settings.items()}
    for size, parts in sizes.items():
        own = [one.split(parts)[rank] for one in batch()]
        found[case + " " + size] = compute(settings, masked, *own, True)
print(json.dumps(found))
distributed.destroy_process_group()
"""
)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    meeting = str(tmp_path_factory.mktemp("ranks") / "meeting")
    arguments = [meeting, json.dumps(CASES), json.dumps(SIZES)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = [subprocess.Popen([sys.executable, "-c", SCRIPT, str(rank), *arguments], **pipes) for rank in range(2)]
    answers = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0, 0], answers
    return [json.loads(out.splitlines()[-1]) for out, _ in answers]


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", CASES)
def test_ranks_equal_one_process(ranks, case, size):
    scope = {}
    exec(CODE, scope)
    settings, masked = CASES[case]
    expected, buffers = scope["compute"](settings, masked, *scope["batch"](), False)
    (first, own), (second, other) = (rank[f"{case} {size}"] for rank in ranks)
    for step, whole in enumerate(expected):
        for index, name in enumerate(("y", "x", "weight", "bias", "second")):
            one, two = (torch.tensor(found[step][index], dtype=torch.float64) for found in (first, second))
            # What belongs to rows is in parts; gradients of the parameters add up.
            both = one + two if name in ("weight", "bias") else torch.cat([one.view(-1, 3, 2), two.view(-1, 3, 2)])
            torch.testing.assert_close(both, torch.tensor(whole[index], dtype=torch.float64), rtol=1e-9, atol=1e-9)
    for kept, same, whole in zip(own, other, buffers, strict=True):
        assert kept == same
        torch.testing.assert_close(torch.tensor(kept), torch.tensor(whole))


def test_one_process_is_alone():
    x = torch.randn(5, 3)
    assert not has_ranks()
    assert sum_over_ranks(x) is x
    torch.testing.assert_close(BatchNorm(3, synchronized=True)(x), BatchNorm(3)(x))
