"""What 50 passes with dropout cost, in plain passes of the same batch, and whether they are right.

    python -m benchmarks.mc_dropout [--pairs 15] [--rows 64 512 4096] [--plain 2000] [--out docs/mc_dropout.md]

Ratios are medians of interleaved pairs (plain pass, ours, plain pass, ours, ...). Progress goes to stderr; the page
goes to `--out` and to stdout, followed by all numbers as one line of JSON.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import nn

from benchmarks._publish import publish
from benchmarks._roofs import describe_machine, roofs
from poise.ensemble import MCPrediction, mc_dropout, predict_mc

FEATURES, WIDTH, DEPTH, CLASSES, P, SAMPLES = 784, 512, 4, 10, 0.5, 50


def note(text: str) -> None:
    """One line of progress."""
    print(text, file=sys.stderr, flush=True)


def network(*, everywhere: bool) -> nn.Sequential:
    """Dropout after each hidden layer, or after the last one only."""
    torch.random.manual_seed(0)
    layers: list[nn.Module] = []
    for depth in range(DEPTH):
        layers += [nn.Linear(WIDTH if depth else FEATURES, WIDTH), nn.ReLU()]
        if everywhere or depth == DEPTH - 1:
            layers.append(nn.Dropout(P))
    return nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES)).eval()


class Residual(nn.Module):
    """The same layers with a stream round them: no chain, so every pass runs in full after the first dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = network(everywhere=True)

    def forward(self, x):
        x = self.layers[:3](x)
        for start in range(3, 3 * DEPTH, 3):
            x = x + self.layers[start : start + 3](x)
        return self.layers[-1](x)


def naive(model: nn.Module, x: torch.Tensor) -> None:
    """What one would write by hand: one pass after another in train mode, where no normalization forbids that."""
    model.train()
    outputs = torch.stack([model(x) for _ in range(SAMPLES)])
    model.eval()
    torch.var_mean(outputs, dim=0)


def seconds(work: Callable[[], object]) -> float:
    """Of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(name: str, model: nn.Module, rows: int, pairs: int, ours: Callable[[], object]) -> dict[str, object]:
    """The cost of `ours` in plain passes."""
    x = torch.randn(rows, FEATURES, generator=torch.Generator().manual_seed(1))
    work = (lambda: model(x)), (lambda: ours(model, x))
    repeats = max(1, 4096 // rows)  # a plain pass of few rows is too short to be timed alone

    def pair() -> tuple[float, float]:
        plain = seconds(lambda: [work[0]() for _ in range(repeats)]) / repeats
        return plain, seconds(work[1])

    pair()
    found = [pair() for _ in range(pairs)]
    ratios = [one / plain for plain, one in found]
    result = {
        "name": name,
        "rows": rows,
        "plain_ms": 1e3 * median(plain for plain, _ in found),
        "ours_ms": 1e3 * median(one for _, one in found),
        "passes": median(ratios),
        "low": min(ratios),
        "high": max(ratios),
    }
    note(f"{name}, {rows} rows: {result['passes']:.2f} passes ({result['low']:.2f} to {result['high']:.2f})")
    return result


def measure_error(plain: int) -> dict[str, object]:
    """z-scores of mean and variance of 50 passes against many plain ones."""
    model = network(everywhere=True)
    x = torch.randn(64, FEATURES, generator=torch.Generator().manual_seed(1))
    with mc_dropout(model):
        outputs = torch.stack([model(x) for _ in range(plain)]).double()
    mean, var = outputs.mean(0), outputs.var(0)
    fourth = (outputs - mean).pow(4).mean(0)

    def scores(samples: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        one: MCPrediction = predict_mc(model, x, samples=samples, seed=seed)
        share = 1 / samples + 1 / plain
        z_var = (one.variance - var) / ((fourth - var.square()) * share).sqrt()
        return (one.mean - mean) / (var * share).sqrt(), z_var

    found = [scores(SAMPLES, seed) for seed in range(20)]
    means, variances = (torch.stack(column) for column in zip(*found, strict=True))
    many = scores(plain, 100)
    last = network(everywhere=False)
    exact = predict_mc(last, x)
    with mc_dropout(last):
        outputs = torch.stack([last(x) for _ in range(plain)]).double()
    last_z = ((exact.mean - outputs.mean(0)) / (exact.variance / plain).sqrt()).abs()
    result = {
        "plain": plain,
        "seeds": len(found),
        "rms_z_mean": float(means.square().mean().sqrt()),
        "rms_z_var": float(variances.square().mean().sqrt()),
        "max_z_mean": float(means.abs().max()),
        "max_z_var": float(variances.abs().max()),
        "many_rms_z_mean": float(many[0].square().mean().sqrt()),
        "many_rms_z_var": float(many[1].square().mean().sqrt()),
        "many_max_z_mean": float(many[0].abs().max()),
        "many_max_z_var": float(many[1].abs().max()),
        "exact_max_z_mean": float(last_z.max()),
        "exact_var_ratio": float((outputs.var(0) / exact.variance).mean()),
        "outputs": means[0].numel(),
    }
    note(f"errors: {result}")
    return result


def page(found: dict[str, object]) -> str:
    """The measurement as Markdown."""
    error, roof = found["error"], found["roofs"]
    lines = [
        "# What Monte-Carlo dropout costs, as measured",
        "",
        "`python -m benchmarks.mc_dropout` wrote this page.",
        "",
        f"A network {FEATURES}-{'-'.join([str(WIDTH)] * DEPTH)}-{CLASSES} with ReLU and dropout p = {P}; {SAMPLES} "
        "passes. Costs are in plain eval passes of the same batch, medians of interleaved pairs with their range.",
        "",
        "- *after each layer*: `predict_mc` with one mask a pass for all rows, so that a pass is a network of the kept "
        "units.",
        "- *after the last layer*: `predict_mc` in closed form.",
        '- *masks for each row*: the same network with `mask="rows"`; only what comes before the first dropout is '
        "saved.",
        "- *no chain*: residual layers, masks for each row.",
        "- *by hand*: a loop over passes in train mode.",
        "",
        "| dropout | rows | plain pass, ms | ours, ms | passes | range |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for one in found["costs"]:
        lines.append(
            f"| {one['name']} | {one['rows']} | {one['plain_ms']:.2f} | {one['ours_ms']:.1f} | **{one['passes']:.2f}** "
            f"| {one['low']:.2f} to {one['high']:.2f} |"
        )
    lines += [
        "",
        "## Errors",
        "",
        f"Against {error['plain']:,} plain passes, {error['outputs']} outputs: z-scores, differences over their "
        "Monte-Carlo error. They are 1 in root mean square for a method without error of its own; outputs of one run "
        "depend on each other.",
        "",
        "| | mean, root mean square | mean, largest | variance, root mean square | variance, largest |",
        "|---|--:|--:|--:|--:|",
        f"| {SAMPLES} passes, {error['seeds']} seeds | {error['rms_z_mean']:.2f} | {error['max_z_mean']:.2f} "
        f"| {error['rms_z_var']:.2f} | {error['max_z_var']:.2f} |",
        f"| {error['plain']:,} passes | {error['many_rms_z_mean']:.2f} | {error['many_max_z_mean']:.2f} "
        f"| {error['many_rms_z_var']:.2f} | {error['many_max_z_var']:.2f} |",
        "",
        f"Closed form: largest z of {error['plain']:,} plain passes' means {error['exact_max_z_mean']:.2f}; their "
        f"variance is {error['exact_var_ratio']:.3f} of the exact one on average.",
        "",
        "## Where",
        "",
        f"{found['machine']}; {found['cores']} cores used. Roofs by torch: {roof['torch_gemm_gflops']:.0f} GFLOP/s in "
        f"float32 products of 1024, {roof['copy_gb_per_s']:.0f} GB/s in copies. On a GPU nothing was measured.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, write the page, print it and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--rows", type=int, nargs="+", default=(64, 512, 4096))
    parser.add_argument("--plain", type=int, default=2000)
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.cores)
    found: dict[str, object] = {"machine": describe_machine(), "cores": options.cores, "roofs": roofs(options.cores)}
    rows_each = lambda model, x: predict_mc(model, x, samples=SAMPLES, mask="rows")  # noqa: E731
    ours = lambda model, x: predict_mc(model, x, samples=SAMPLES)  # noqa: E731
    costs = []
    with torch.no_grad():
        for rows in options.rows:
            each = network(everywhere=True)
            costs.append(measure("after each layer", each, rows, options.pairs, ours))
            costs.append(measure("after the last layer", network(everywhere=False), rows, 4 * options.pairs, ours))
        few = max(3, options.pairs // 3)
        costs.append(measure("masks for each row", each, 512, few, rows_each))
        costs.append(measure("no chain", Residual().eval(), 512, few, ours))
        costs.append(measure("by hand", each, 512, few, naive))
        found["costs"] = costs
        found["error"] = measure_error(options.plain)
    publish(page(found), found, options.out)


if __name__ == "__main__":
    main()
