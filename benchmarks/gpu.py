"""What our kernels and fleets do on a GPU, beside eager torch and `torch.compile`; needs one.

    python -m benchmarks.gpu [--pairs 7] [--only kernels fleet] [--out docs/gpu.md]

Progress goes to stderr. The page goes to `--out` and to stdout, followed by all numbers as one line of JSON.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
import triton
from torch import nn

from benchmarks._publish import publish
from benchmarks._rivals import SIZES, training
from benchmarks.fleet import OurFleet, note
from benchmarks.kernels import ACTIVATIONS, passes
from benchmarks.quality import _markdown, _wrapped
from poise._random import Key
from poise.fleet.stacked import StackedEngine
from poise.nn._fused import NormActDropout

SHAPES = ((256, 512), (4096, 1024), (8192, 2048), (65536, 1024))
CASES = (("relu", 0.1), ("gelu", 0.5))
DTYPES = (torch.float32, torch.bfloat16)
FLEETS = (8, 32, 128)
_LEAST_SECONDS = 0.02  # of a measured stretch


@dataclass(frozen=True)
class Layer:
    """Microseconds of a forward and backward pass, and rival over fused within each pair."""

    rows: int
    columns: int
    activation: str
    p: float
    dtype: str
    fused_us: float
    eager_us: float
    compiled_us: float
    to_eager: float
    to_compiled: float
    gb_per_s: float
    first_ms: tuple[float, float]


def seconds(run: Callable[[], object], times: int) -> float:
    """The mean of `times` runs, waiting for the GPU at their end only, as a training does."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(times):
        run()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / times


def measure_layer(rows: int, columns: int, activation: str, p: float, dtype: torch.dtype, pairs: int) -> Layer:
    """The fused layer beside eager and compiled torch, in turns."""
    x = torch.randn(rows, columns, device="cuda", dtype=dtype, requires_grad=True)
    g = torch.randn(rows, columns, device="cuda", dtype=dtype)

    def sequence() -> nn.Module:
        return nn.Sequential(nn.BatchNorm1d(columns), ACTIVATIONS[activation](), nn.Dropout(p)).cuda()

    fused = NormActDropout(columns, p, activation=activation, key=Key(1)).cuda()
    torch._dynamo.reset()  # a limit of graphs for each function would end in eager code
    runs = [passes(layer, x, g) for layer in (fused, sequence(), torch.compile(sequence()))]
    first = [seconds(run, 1) for run in runs]
    times = [max(1, round(_LEAST_SECONDS / seconds(run, 5))) for run in runs]
    taken = [[seconds(run, most) for run, most in zip(runs, times, strict=True)] for _ in range(pairs)]
    fused_us, eager_us, compiled_us = (1e6 * median(column) for column in zip(*taken, strict=True))
    # Forward reads x and writes y, backward reads x and g and writes dx; the statistics read x once more, and so do
    # the sums of the way back with g: what no kernel that does not fit the caches can leave out.
    moved = x.element_size() * x.numel() * 8
    found = Layer(
        rows, columns, activation, p, str(dtype).removeprefix("torch."), fused_us, eager_us, compiled_us,
        median(eager / ours for ours, eager, _ in taken), median(compiled / ours for ours, _, compiled in taken),
        moved / fused_us / 1e3, (1e3 * first[0], 1e3 * first[2]),
    )  # fmt: skip
    note(
        f"{rows} x {columns} {activation} {p} {found.dtype}: {fused_us:.0f} us, eager {eager_us:.0f}, compiled "
        f"{compiled_us:.0f}"
    )
    return found


def copy_gb_per_s() -> float:
    """What copies on the device reach, bytes read and written."""
    source, target = (torch.empty(1 << 29, device="cuda").normal_() for _ in range(2))
    return 2 * source.numel() * 4 / min(seconds(lambda: target.copy_(source), 3) for _ in range(5)) / 1e9


def measure_fleet(number: int, pairs: int) -> dict[str, float]:
    """A fleet of S on the stacked engine, beside that many trainings in eager torch one after the other."""
    size = SIZES[0]
    ours = OurFleet(size, number, 1, [StackedEngine(number, device="cuda")])
    theirs = training(size, "fused", "cuda")
    ours.advance(2), theirs()
    taken = [(ours.advance(2) / 2, seconds(theirs, 1) * number) for _ in range(pairs)]
    found = {
        "networks": number,
        "ours_us": 1e6 * median(one for one, _ in taken) / size.steps,
        "eager_us": 1e6 * median(one for _, one in taken) / size.steps,
        "ratio": median(b / a for a, b in taken),
    }
    note(f"{number} networks: {found['ours_us']:.0f} us a step of all, eager {found['eager_us']:.0f}")
    return found


def page(found: dict[str, object]) -> str:
    """The measurement as Markdown."""
    lines = ["# On a GPU, as measured", "", "`python -m benchmarks.gpu` wrote this page.", ""]
    if "kernels" in found:
        text = (
            "One layer, `NormActDropout`, beside `nn.Sequential(BatchNorm1d, ReLU or GELU, Dropout)` in eager torch "
            "and under `torch.compile`, forward and backward in training, in turns; medians, and medians of ratios. "
            f"Copies on this device move {found['copy_gb_per_s']:.0f} GB/s; GB/s of the fused layer counts eight "
            "passes over a tensor of x's size. First calls compile: ours once per machine, torch.compile's once per "
            "process and shape. Up to 8192 x 2048 the GPU waits for Python, in ours and in compiled code; a training "
            "step in one CUDA graph, as fleets make it, does not."
        )
        head = ["size", "dtype", "activation", "p", "fused us", "eager us", "compiled us", "eager / fused"]
        rows = [[*head, "compiled / fused", "GB/s", "first call ms, fused / compiled"]]
        for one in found["kernels"]:
            rows.append([f"{one['rows']} x {one['columns']}", one["dtype"], one["activation"], str(one["p"])])
            rows[-1] += [f"{one[name]:.0f}" for name in ("fused_us", "eager_us", "compiled_us")]
            rows[-1] += [f"**{one['to_eager']:.1f}**", f"**{one['to_compiled']:.2f}**", f"{one['gb_per_s']:.0f}"]
            rows[-1] += [" / ".join(f"{value:.0f}" for value in one["first_ms"])]
        lines += ["## One layer", "", _wrapped(text), "", *_markdown(rows), ""]
    if "fleet" in found:
        size = SIZES[0]
        text = (
            f"Networks {size.features}-{size.width}-{size.width}-1 with batch normalization, dropout and AdamW, "
            f"batches of {size.batch}, on the stacked engine, beside as many trainings one after the other in eager "
            "torch with the fused optimizer and all data on the device. Microseconds of one step of all networks; "
            "scores after each epoch included."
        )
        rows = [["networks", "ours, us", "eager, us", "eager / ours"]]
        for one in found["fleet"]:
            rows.append([str(one["networks"]), f"{one['ours_us']:.0f}", f"{one['eager_us']:.0f}"])
            rows[-1].append(f"**{one['ratio']:.0f}x**")
        lines += ["## A fleet", "", _wrapped(text), "", *_markdown(rows), ""]
    return "\n".join([*lines, "## Where", "", f"{found['machine']}.", ""])


def main() -> None:
    """Measure, write the page, print it and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--only", nargs="+", choices=("kernels", "fleet"), default=("kernels", "fleet"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("There is no GPU that torch can use here, and this measures one.")
    name, cuda = torch.cuda.get_device_name(), torch.version.cuda
    machine = f"{name}, torch {torch.__version__}, CUDA {cuda}, triton {triton.__version__}"
    found: dict[str, object] = {"machine": machine}
    if "kernels" in options.only:
        found["copy_gb_per_s"] = copy_gb_per_s()
        cases = [(*shape, *case, dtype) for dtype in DTYPES for shape in SHAPES for case in CASES]
        found["kernels"] = [asdict(measure_layer(*case, options.pairs)) for case in cases]
    if "fleet" in options.only:
        found["fleet"] = [measure_fleet(number, min(3, options.pairs)) for number in FLEETS]
    publish(page(found), found, options.out)


if __name__ == "__main__":
    main()
