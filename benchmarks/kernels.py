"""What fusing normalization, nonlinearity and dropout saves on a CPU: time and memory of one layer, beside eager torch.

    python -m benchmarks.kernels [--threads 2] [--pairs 9] [--out docs/kernels.md]

Progress goes to stderr. The page goes to `--out` and to stdout, followed by all numbers as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks.quality import _markdown, _processor, _wrapped
from poise._random import Key
from poise.kernels import ops
from poise.nn._fused import NormActDropout

SIZES = ((256, 512), (4096, 1024), (8192, 2048))
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU}
PROBABILITIES = (0.1, 0.5)
_LEAST_SECONDS = 0.02  # of a measured stretch: small layers run several times


class FastDropout(nn.Module):
    """Our dropout in place of torch's, so that faster random numbers are not sold as fusion."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p, self.step = p, 0

    def forward(self, x: Tensor) -> Tensor:
        """x times a mask."""
        key, step, p, _, on = ops.settings(1, self.step, self.p, 1e-5, x.device)
        self.step += 1
        return ops.dropout(x.unsqueeze(0), key, step, p, on).squeeze(0)


@dataclass(frozen=True)
class Measured:
    """One layer: milliseconds of a forward and backward pass, and rival over fused within each pair."""

    rows: int
    columns: int
    activation: str
    p: float
    rival: str
    fused_ms: float
    rival_ms: float
    ratio: float
    lowest: float
    highest: float


def passes(layer: nn.Module, x: Tensor, g: Tensor) -> Callable[[], None]:
    """A forward and backward pass of `layer`."""
    parameters = (x, *layer.parameters())

    def run() -> None:
        torch.autograd.grad(layer(x), parameters, g)

    return run


def seconds(run: Callable[[], None], times: int) -> float:
    """The mean of `times` runs."""
    started = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - started) / times


def measure(rows: int, columns: int, activation: str, p: float, pairs: int) -> list[Measured]:
    """The fused layer beside both rivals, in turns."""
    x, g = torch.randn(rows, columns, requires_grad=True), torch.randn(rows, columns)
    fused = passes(NormActDropout(columns, p, activation=activation, key=Key(1)), x, g)
    found = []
    for rival, dropout in (("eager", nn.Dropout(p)), ("eager, fast dropout", FastDropout(p))):
        other = passes(nn.Sequential(nn.BatchNorm1d(columns), ACTIVATIONS[activation](), dropout), x, g)
        fused(), other()
        times = max(1, round(_LEAST_SECONDS / seconds(fused, 3)))
        taken = [(seconds(fused, times), seconds(other, max(1, times // 8))) for _ in range(pairs)]
        ratios = sorted(theirs / ours for ours, theirs in taken)
        found.append(
            Measured(
                rows=rows, columns=columns, activation=activation, p=p, rival=rival,
                fused_ms=1e3 * median(ours for ours, _ in taken), rival_ms=1e3 * median(theirs for _, theirs in taken),
                ratio=median(ratios), lowest=ratios[0], highest=ratios[-1],
            )
        )  # fmt: skip
    return found


def kept_bytes(layer: nn.Module, x: Tensor) -> int:
    """What autograd keeps for the backward pass, each piece of memory once."""
    kept: dict[int, int] = {}

    def keep(one: Tensor) -> Tensor:
        kept[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
        return one

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        layer(x)
    return sum(kept.values())


def memory() -> dict[str, dict[str, int]]:
    """Bytes kept for one layer of 4096 x 1024."""
    x = torch.randn(4096, 1024, requires_grad=True)
    return {
        name: {
            "eager": kept_bytes(nn.Sequential(nn.BatchNorm1d(1024), layer(), nn.Dropout(0.5)), x),
            "fused": kept_bytes(NormActDropout(1024, 0.5, activation=name, key=Key(1)), x),
        }
        for name, layer in ACTIVATIONS.items()
    }


def roofs() -> dict[str, float]:
    """What the machine can do: copying, multiplying, and drawing a mask on one core."""
    source, target = torch.randn(1 << 24), torch.randn(1 << 24)
    copying = min(seconds(lambda: target.copy_(source), 1) for _ in range(9))
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    multiplying = min(seconds(lambda: torch.mm(a, b), 5) for _ in range(5))
    threads, num = torch.get_num_threads(), 1 << 20
    torch.set_num_threads(1)
    x, (key, step, p, _, on) = torch.randn(1, num), ops.settings(1, 1, 0.5, 1e-5, torch.device("cpu"))
    ours = min(seconds(lambda: ops.dropout(x, key, step, p, on), 5) for _ in range(7))
    mask = min(seconds(lambda: Key(1, 1).keep_mask(num, p=0.5), 5) for _ in range(7))
    theirs = min(seconds(lambda: nn.functional.dropout(x, 0.5), 1) for _ in range(7))
    torch.set_num_threads(threads)
    return {
        "copy, GB/s": 2 * source.nbytes / copying / 1e9,
        "matrix product of 1024, GFLOP/s": 2 * 1024**3 / multiplying / 1e9,
        "mask, ns an element and core": 1e9 * mask / num,
        "dropout, ns an element and core": 1e9 * ours / num,
        "torch's dropout, ns an element and core": 1e9 * theirs / num,
    }


def page(results: list[Measured], kept: dict[str, dict[str, int]], limits: dict[str, float], pairs: int) -> str:
    """The measurement as Markdown."""
    rows = [["size", "activation", "p", "rival", "fused ms", "rival ms", "**rival / fused**", "lowest to highest"]]
    rows += [
        [f"{one.rows} x {one.columns}", one.activation, f"{one.p}", one.rival, f"{one.fused_ms:.3f}",
         f"{one.rival_ms:.3f}", f"**{one.ratio:.1f}**", f"{one.lowest:.1f} to {one.highest:.1f}"]
        for one in results
    ]  # fmt: skip
    bytes_ = [["activation", "eager", "fused", "eager / fused"]]
    bytes_ += [
        [name, f"{one['eager']:,}", f"{one['fused']:,}", f"{one['eager'] / one['fused']:.2f}"]
        for name, one in kept.items()
    ]
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "numba", "numpy", "poise"))
    return "\n".join(
        [
            "# What fusing saves, as measured",
            "",
            _wrapped(
                "`python -m benchmarks.kernels` wrote this page. One layer, `NormActDropout`, beside "
                "`nn.Sequential(BatchNorm1d, ReLU or GELU, Dropout)`, forward and backward in float32 in training, "
                "in the same process with the same number of threads. The second rival has torch's norm and "
                "nonlinearity and our dropout. Both sides run in turns; times are medians, the ratio is the median of "
                f"the ratios within {pairs} pairs, with its range."
            ),
            "",
            *_markdown(rows),
            "",
            "## Bytes kept for the backward pass, 4096 x 1024",
            "",
            *_markdown(bytes_),
            "",
            "## What the machine can do",
            "",
            *_markdown([["", "measured"], *([name, f"{value:.2f}"] for name, value in limits.items())]),
            "",
            _wrapped(
                f"{_processor()}, {torch.get_num_threads()} thread(s); Python {platform.python_version()}, {versions}."
            ),
            "",
        ]
    )


def main() -> None:
    """Measure, write the page, print it and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = []
    for rows, columns in SIZES:
        for activation in ACTIVATIONS:
            for p in PROBABILITIES:
                results += measure(rows, columns, activation, p, options.pairs)
                for one in results[-2:]:
                    print(
                        f"{rows} x {columns} {activation} p={p}: {one.fused_ms:.3f} ms, {one.ratio:.1f}x {one.rival}",
                        file=sys.stderr, flush=True,
                    )  # fmt: skip
    kept, limits = memory(), roofs()
    text = page(results, kept, limits, options.pairs)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    print(text)
    print(json.dumps({"results": [asdict(one) for one in results], "kept": kept, "roofs": limits}))


if __name__ == "__main__":
    main()
