"""How much faster networks train after `poise.accelerate`, and predict after `poise.fold`.

    python -m benchmarks.surgery [--pairs 7] [--cores 2] [--quick] [--out docs/surgery_speed.md]

Ratios are medians of interleaved pairs (plain, changed, plain, changed, ...). Progress goes to stderr; the page goes to
`--out` and to stdout, followed by all numbers as one line of JSON.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import nn
from torch.nn import functional

from benchmarks._publish import publish
from benchmarks._roofs import describe_machine, roofs
from poise.surgery import accelerate, fold


def note(text: str) -> None:
    """One line of progress."""
    print(text, file=sys.stderr, flush=True)


def mlp(width: int = 1024, depth: int = 4, p: float = 0.5) -> nn.Module:
    """Hidden layers of linear, batch norm, ReLU and dropout."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(p)]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def conv_net(p: float = 0.25) -> nn.Module:
    """Four convolutions with batch norm, ReLU and dropout on 28 x 28 images."""
    layers: list[nn.Module] = []
    for before, after, stride in ((1, 32, 1), (32, 32, 2), (32, 64, 1), (64, 64, 2)):
        conv = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(after), nn.ReLU(), nn.Dropout(p)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


class Block(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or before != after:
            self.skip = nn.Sequential(nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The branch plus the skip."""
        y = functional.relu(self.norm1(self.conv1(x)), inplace=True)
        return functional.relu(self.norm2(self.conv2(y)) + self.skip(x), inplace=True)


def resnet20(width: int = 16) -> nn.Module:
    """The residual network of He et al. (2016) for 32 x 32 images: 21 convolutions, each with batch norm."""
    stem = [nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    stages = [(1, 1, 1)] * 3 + [(1, 2, 2)] + [(2, 2, 1)] * 2 + [(2, 4, 2)] + [(4, 4, 1)] * 2
    blocks = [Block(before * width, after * width, stride) for before, after, stride in stages]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10))


def inverted_net(width: int = 32) -> nn.Module:
    """Sixteen convolutions, five of them depthwise, each with batch norm: cheap products beside costly passes."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU6()]
    for _ in range(5):
        wide = 4 * width
        layers += [nn.Conv2d(width, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()]
        layers += [nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()]
        layers += [nn.Conv2d(wide, width, 1, bias=False), nn.BatchNorm2d(width)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def randomized(model: nn.Module) -> nn.Module:
    """With statistics as after a training."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return model


def training_step(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    """Forward, backward and AdamW."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-3, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def prediction(model: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """Forward in eval mode."""
    model.eval()

    def run() -> None:
        with torch.inference_mode():
            model(x)

    return run


def seconds(work: Callable[[], None], times: int) -> float:
    """Of one run, as a mean over several."""
    started = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - started) / times


def race(
    name: str, plain: Callable[[], None], changed: Callable[[], None], pairs: int, least: float
) -> dict[str, object]:
    """The ratio of two ways to do the same."""
    for work in (plain, changed):
        seconds(work, 2)
    times = max(2, round(least / seconds(plain, 2)))
    found = [(seconds(plain, times), seconds(changed, times)) for _ in range(pairs)]
    ratios = [a / b for a, b in found]
    ours, theirs = (1e3 * median(column) for column in (list(zip(*found, strict=True))[i] for i in (1, 0)))
    result = {
        "name": name, "plain_ms": theirs, "changed_ms": ours, "ratio": median(ratios), "low": min(ratios),
        "high": max(ratios),
    }  # fmt: skip
    note(f"{name}: {theirs:.2f} ms against {ours:.2f}: {median(ratios):.2f}x")
    return result


def measure_training(pairs: int, least: float, quick: bool) -> list[dict[str, object]]:
    """Training steps, plain and accelerated, of the same network."""
    rows = []
    width = 256 if quick else 1024
    cases = [(f"MLP 4 x {width}, batch {rows}", mlp(width), (rows, width), False) for rows in (256, 1024)]
    cases += [
        (f"conv net{', channels last' if last else ''}, batch 64", conv_net(), (64, 1, 28, 28), last)
        for last in (False, True)
    ]
    for name, made, shape, last in cases:
        form = torch.channels_last if last else torch.contiguous_format
        x, y = torch.randn(*shape).to(memory_format=form), torch.randint(10, shape[:1])
        model = made.to(memory_format=form)
        fast = copy.deepcopy(model)
        edits = accelerate(fast, example=x)
        kinds = {type(edit.layer).__name__ for edit in edits.edits if hasattr(edit, "layer")} - {"Identity"}
        row = race(name, training_step(model, x, y), training_step(fast, x, y), pairs, least)
        rows.append({**row, "layers": " and ".join(sorted(kinds))})
    return rows


def measure_folding(pairs: int, least: float, quick: bool) -> list[dict[str, object]]:
    """Predictions, plain and folded, of the same network."""
    rows = []
    size = 16 if quick else 32
    nets, layouts = {"ResNet-20": resnet20, "inverted net": inverted_net}, {"": False, ", channels last": True}
    for (name, make), batch, (layout, last) in itertools.product(nets.items(), (1, 32), layouts.items()):
        form = torch.channels_last if last else torch.contiguous_format
        x, model = torch.randn(batch, 3, size, size).to(memory_format=form), randomized(make()).eval()
        model = model.to(memory_format=form)
        work = prediction(model, x), prediction(fold(model, x), x)
        rows.append(race(f"{name}, batch {batch}{layout}", *work, pairs, least))
    return rows


def page(found: dict[str, object]) -> str:
    """The measurement as Markdown."""
    roof = found["roofs"]
    lines = [
        "# How much surgery speeds up, as measured",
        "",
        "`python -m benchmarks.surgery` wrote this page. Ratios are medians of interleaved pairs, with their range; "
        f"{found['pairs']} pairs each." + (" This was a short run on small networks." if found["quick"] else ""),
        "",
        "## `accelerate`",
        "",
        "A training step (forward, backward, fused AdamW) of the network as it is in torch and after "
        "`poise.accelerate(model, example=x)`, which chooses by the size and the memory layout of the example. The MLP "
        "has batch normalization, ReLU and dropout 0.5 after each hidden layer; the conv net has four convolutions on "
        "28 x 28 images with batch normalization, ReLU and dropout 0.25.",
        "",
        "| network | torch, ms | accelerated, ms | speed-up | range | what was put there |",
        "|---|--:|--:|--:|--:|---|",
    ]
    lines += [f"{_row(one)} {one['layers']} |" for one in found["training"]]
    lines += [
        "",
        "Three rules come from measurements of single layers. Below 16,384 elements torch's dropout is as fast and "
        "stays. Rows are fused into one kernel from 524,288 elements on, and maps where channels lie last in memory, "
        "from 16,384 on; otherwise torch's normalization with a fast dropout is as fast and stays. Normalization "
        "without dropout is left to torch.",
        "",
        "## `fold`",
        "",
        "A prediction of ResNet-20, and of a network of five inverted residual blocks without the sums (16 "
        "convolutions, five of them depthwise), each convolution with batch normalization, on "
        f"{found['size']} x "
        f"{found['size']} images, as it is in eval mode and after `poise.fold(model, x)`.",
        "",
        "| network | torch, ms | folded, ms | speed-up | range |",
        "|---|--:|--:|--:|--:|",
    ]
    lines += [_row(one) for one in found["folding"]]
    lines += [
        "",
        "## Where",
        "",
        f"{found['machine']}; {found['cores']} threads. Roofs by torch: {roof['torch_gemm_gflops']:.0f} GFLOP/s in "
        f"float32 products of 1024, {roof['copy_gb_per_s']:.0f} GB/s in copies.",
        "",
    ]
    return "\n".join(lines)


def _row(one: dict[str, object]) -> str:
    return (
        f"| {one['name']} | {one['plain_ms']:.2f} | {one['changed_ms']:.2f} | **{one['ratio']:.2f}x** "
        f"| {one['low']:.2f} to {one['high']:.2f} |"
    )


def main() -> None:
    """Measure, write the page, print it and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--quick", action="store_true", help="small networks and short runs, to try the command")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.cores)
    torch.manual_seed(0)
    pairs, least = (3, 0.01) if options.quick else (options.pairs, 0.5)
    found: dict[str, object] = {
        "machine": describe_machine(), "cores": options.cores, "pairs": pairs, "roofs": roofs(options.cores),
        "size": 16 if options.quick else 32, "quick": options.quick,
    }  # fmt: skip
    found["training"] = measure_training(pairs, least, options.quick)
    found["folding"] = measure_folding(pairs, least, options.quick)
    publish(page(found), found, options.out)


if __name__ == "__main__":
    main()
