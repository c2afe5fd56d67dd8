"""What batch statistics cost when they are wrong, and what `poise.recalibrate` and `poise.nn.BatchNorm` bring back.

    python -m benchmarks.statistics [--seeds 3] [--quick] [--only dropout averages] [--out docs/statistics.md]

Needs `apt-get install dataset-fashion-mnist`. Progress goes to stderr; the page goes to `--out` and to stdout, followed
by all numbers as one line of JSON.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, stdev

import torch
from scipy.stats import t as student
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from benchmarks._images import NETWORKS, Images, Loop, Norm, accuracy, draw, load, wide_res_net
from benchmarks._publish import publish
from benchmarks._roofs import describe_machine
from poise import recalibrate
from poise.nn import BatchNorm

NUM_TRAIN = 5000
P = 0.5
BATCH = 64
EMA_DECAY = 0.98
# 5,000 = 39 · 128 + 8 = 3 · 1,666 + 2
SIZES = (128, 1666)
STEP, MICRO = 256, 8
WAYS: dict[str, tuple[int, Norm]] = {
    "1 x 256, torch": (1, nn.BatchNorm2d),
    "8 x 32, torch": (MICRO, nn.BatchNorm2d),
    "8 x 32, poise": (MICRO, lambda channels: BatchNorm(channels, accumulate=MICRO)),
}
Row = dict[str, float]


def note(text: str) -> None:
    """One line of progress."""
    print(text, file=sys.stderr, flush=True)


def fresh(make, seed: int, *settings) -> nn.Module:
    """A network with the weights of that seed."""
    torch.manual_seed(seed)
    return make(*settings).to(memory_format=torch.channels_last)


def with_core(network: nn.Module, train: Images, size: int) -> nn.Module:
    """A copy after torch's `update_bn`."""
    torch.manual_seed(0)
    network = copy.deepcopy(network)
    update_bn(list(train.batches(size)), network)
    return network


def with_ours(network: nn.Module, train: Images, size: int, *, sequential: bool = True) -> nn.Module:
    """A copy after `poise.recalibrate`."""
    network = copy.deepcopy(network)
    recalibrate(network, list(train.batches(size)), sequential=sequential)
    return network


def timed(work) -> tuple[nn.Module, float]:
    """What it makes, and its seconds."""
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def measure_dropout(seed: int, epochs: int, part: Images, test: Images) -> list[Row]:
    """Accuracy without and with dropout before batch normalization, and with recalibrated statistics."""
    rows = []
    for name, make in NETWORKS.items():
        bare = Loop(epochs, BATCH).train(fresh(make, seed, 0.0), part, seed)
        dropped = Loop(epochs, BATCH).train(fresh(make, seed, P), part, seed)
        core, core_s = timed(lambda n=dropped: with_core(n, part, SIZES[0]))
        ours, ours_s = timed(lambda n=dropped: with_ours(n, part, SIZES[0]))
        once, once_s = timed(lambda n=dropped: with_ours(n, part, SIZES[0], sequential=False))
        networks = {"without": bare, "with": dropped, "core": core, "ours": ours, "once": once}
        row = {"network": name, "seed": seed} | {key: accuracy(one, test) for key, one in networks.items()}
        rows.append(row | {"core_s": core_s, "ours_s": ours_s, "once_s": once_s})
        note(f"dropout: {rows[-1]}")
    return rows


def measure_averages(seed: int, epochs: int, part: Images, test: Images) -> list[Row]:
    """Accuracy of SWA and EMA with the statistics of the last step, of core and of ours, for two sizes of batch."""
    rows = []
    for p in (0.0, 0.3):
        network = fresh(wide_res_net, seed, p)
        swa = AveragedModel(network)
        ema = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
        start = epochs // 2

        def after_epoch(epoch: int, network=network, swa=swa, start=start) -> None:
            if epoch >= start:
                swa.update_parameters(network)

        Loop(epochs, BATCH, lr=0.1, last_lr=0.03).train(
            network,
            part,
            seed,
            after_step=lambda network=network, ema=ema: ema.update_parameters(network),
            after_epoch=after_epoch,
        )
        row = {"p": p, "seed": seed, "last": accuracy(network, test)}
        for name, average in (("swa", swa), ("ema", ema)):
            row[f"{name}, none"] = accuracy(average, test)
            for size in SIZES:
                row[f"{name}, core, {size}"] = accuracy(with_core(average, part, size), test)
                row[f"{name}, ours, {size}"] = accuracy(with_ours(average, part, size), test)
        rows.append(row)
        note(f"averages: {row}")
    return rows


def measure_accumulation(seed: int, epochs: int, part: Images, test: Images) -> list[Row]:
    """Training with a batch of 256 and with 8 micro-batches of 32: accuracy, and how far running statistics are off."""
    rows = []
    trained = {}
    for name, (micro, norm) in WAYS.items():
        network = fresh(wide_res_net, seed, 0.0, norm)
        trained[name] = Loop(epochs, STEP, micro, whole=True).train(network, part, seed)
        exact = copy.deepcopy(network)
        report = recalibrate(exact, list(part.batches(STEP)))
        row = {"way": name, "seed": seed, "test": accuracy(network, test), "exact": accuracy(exact, test)}
        row["mean_distance"] = fmean(one.mean_distance for one in report.layers)
        row["var_factor"] = fmean(one.var_factor for one in report.layers)
        row |= drift(trained["1 x 256, torch"], part, name)
        rows.append(row)
        note(f"accumulation: {row}")
    return rows


@torch.no_grad()
def drift(weights: nn.Module, part: Images, name: str) -> Row:
    """How far running statistics are from those of whole batches after an epoch, all weights being the same."""
    found = {}
    for which in ("1 x 256, torch", name):
        micro, norm = WAYS[which]
        network = fresh(wide_res_net, 0, 0.0, norm)
        network.load_state_dict(weights.state_dict())
        network.train()
        for x, _ in part.batches(STEP):
            if len(x) == STEP:
                for piece in x.chunk(micro):
                    network(piece)
        found[which] = [
            (layer.running_mean, layer.running_var) for layer in network.modules() if hasattr(layer, "running_mean")
        ]
    pairs = list(zip(found["1 x 256, torch"], found[name], strict=True))
    means = [float(((a[0] - b[0]).abs() / a[1].sqrt()).max()) for a, b in pairs]
    variances = [float((b[1] / a[1] - 1).abs().max()) for a, b in pairs]
    return {"first_mean": means[0], "all_mean": max(means), "first_var": variances[0], "all_var": max(variances)}


def interval(values: Sequence[float], digits: int = 2, scale: float = 100) -> str:
    """Mean and half of its 95 % interval (Student)."""
    values = [scale * value for value in values]
    if len(values) < 2:
        return f"{values[0]:.{digits}f}"
    half = student.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5
    return f"{fmean(values):.{digits}f} ± {half:.{digits}f}"


def returned(rows: Sequence[Row], key: str) -> str:
    """Share of the drop that is brought back, where there was one on every seed."""
    if any(row["without"] <= row["with"] for row in rows):
        return "no drop on some seed"
    return interval([(row[key] - row["with"]) / (row["without"] - row["with"]) for row in rows], 0) + " %"


def page_dropout(rows: Sequence[Row]) -> list[str]:
    """The part on dropout."""
    lines = [
        "## Dropout before batch normalization",
        "",
        f"Dropout of {P} in every block, so that batch normalizations behind it meet another variance in eval mode "
        "than in training (Li et al. 2019). Test accuracy in percent: trained without dropout, trained with it, and "
        "the latter after recalibration on the training images in batches of 128, with torch's `update_bn`, which "
        "leaves dropout on, and with `poise.recalibrate`, layer by layer and in one pass. The share is of the "
        "difference between the first two, where all seeds have one; the rest of it is what dropout itself costs in so "
        "short a training.",
        "",
        "| network | without | with | `update_bn` | `recalibrate` | one pass | share, `update_bn` "
        "| share, `recalibrate` |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name in NETWORKS:
        own = [row for row in rows if row["network"] == name]
        cells = [interval([row[key] for row in own]) for key in ("without", "with", "core", "ours", "once")]
        lines.append(f"| {name} | {' | '.join(cells)} | {returned(own, 'core')} | {returned(own, 'ours')} |")
    lines += ["", "Gain over the network as trained, in points, seed by seed:", ""]
    lines += [
        "| network | `update_bn` | `recalibrate` | `recalibrate` over `update_bn` "
        "| seconds of a core: `update_bn`, layers, one pass |",
        "|---|--:|--:|--:|---|",
    ]
    for name in NETWORKS:
        own = [row for row in rows if row["network"] == name]
        pairs = (("core", "with"), ("ours", "with"), ("ours", "core"))
        gains = [interval([row[a] - row[b] for row in own]) for a, b in pairs]
        seconds = ", ".join(f"{fmean(row[key] for row in own):.1f}" for key in ("core_s", "ours_s", "once_s"))
        lines.append(f"| {name} | {' | '.join(gains)} | {seconds} |")
    return [*lines, ""]


def page_averages(rows: Sequence[Row]) -> list[str]:
    """The part on averages."""
    lines = [
        "## Averages of weights",
        "",
        "The WideResNet-like network; SWA averages the ends of the second half of the epochs, EMA every step with "
        f"decay {EMA_DECAY}. Test accuracy in percent with the statistics of the network at the last step (none), with "
        "torch's `update_bn` and with `poise.recalibrate`. Of 5,000 images in batches of 128 the last batch has 8, in "
        "batches of 1,666 it has 2; `update_bn` counts it as a full one.",
        "",
        "| dropout | average | last step | none | `update_bn`, 128 | `recalibrate`, 128 | `update_bn`, 1666 "
        "| `recalibrate`, 1666 |",
        "|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    for p in sorted({row["p"] for row in rows}):
        own = [row for row in rows if row["p"] == p]
        for name in ("swa", "ema"):
            keys = ["last", f"{name}, none", *(f"{name}, {who}, {size}" for size in SIZES for who in ("core", "ours"))]
            cells = " | ".join(interval([row[key] for row in own]) for key in keys)
            lines.append(f"| {p} | {name.upper()} | {cells} |")
    return [*lines, ""]


def page_accumulation(rows: Sequence[Row]) -> list[str]:
    """The part on accumulation."""
    lines = [
        "## Accumulated gradients",
        "",
        "The WideResNet-like network, trained with steps of 256 images at once and of 8 micro-batches of 32, with "
        "torch's BatchNorm2d and with `poise.nn.BatchNorm(accumulate=8)`. Test accuracy in percent as trained and with "
        "exact statistics; then how far the running statistics were from the exact ones of the same network: distance "
        "of means in standard deviations and factor of variances, each the largest over channels, averaged over "
        "layers.",
        "",
        "| steps | as trained | exact statistics | means off by | variances off by a factor |",
        "|---|--:|--:|--:|--:|",
    ]
    for name in WAYS:
        own = [row for row in rows if row["way"] == name]
        cells = [interval([row["test"] for row in own]), interval([row["exact"] for row in own])]
        cells += [interval([row[key] for row in own], 3, 1) for key in ("mean_distance", "var_factor")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "The same weights for all (those of the first row), an epoch of forward passes: difference of the running "
        "statistics from those of whole batches. The first layer is given the same values either way; behind it, "
        "micro-batches are normalized by their own statistics.",
        "",
        "| steps | means, first layer | means, all layers | variances, first layer | variances, all layers |",
        "|---|--:|--:|--:|--:|",
    ]
    for name in list(WAYS)[1:]:
        own = [row for row in rows if row["way"] == name]
        keys = ("first_mean", "all_mean", "first_var", "all_var")
        cells = " | ".join(f"{fmean(row[key] for row in own):.1e}" for key in keys)
        lines.append(f"| {name} | {cells} |")
    return [*lines, ""]


PAGES = {"dropout": page_dropout, "averages": page_averages, "accumulation": page_accumulation}
MEASURES = {"dropout": measure_dropout, "averages": measure_averages, "accumulation": measure_accumulation}


def measure(job: tuple[str, int, int, int, int]) -> list[Row]:
    """One part with one seed, on one core."""
    name, seed, epochs, num_train, num_test = job
    torch.set_num_threads(1)
    test = load("t10k")
    test = Images(test.x[:num_test], test.y[:num_test])
    return MEASURES[name](seed, epochs, draw(load("train"), num_train, seed), test)


def page(found: dict[str, object]) -> str:
    """The measurement as Markdown."""
    lines = [
        "# Batch statistics, as measured",
        "",
        "`python -m benchmarks.statistics` wrote this page.",
        "",
        f"{found['train']:,} images of Fashion-MNIST for training, drawn anew for each seed, {found['test']:,} for the "
        f"test. Means over {found['seeds']} seeds with 95 % intervals (Student). {found['epochs']} epochs of SGD with "
        "momentum.",
        "",
    ]
    for name, write in PAGES.items():
        if name in found:
            lines += write(found[name])
    minutes = found["seconds"] / 60
    lines += ["## Where", "", f"{found['machine']}; {found['cores']} cores used, {minutes:.0f} minutes in all.", ""]
    return "\n".join(lines)


def main() -> None:
    """Measure, write the page, print it and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--quick", action="store_true", help="a try of everything in a minute or two; no result")
    parser.add_argument("--only", nargs="+", choices=tuple(PAGES), default=tuple(PAGES))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    started = time.perf_counter()
    seeds, epochs, cores = options.seeds, options.epochs, options.cores
    if options.quick:
        seeds, epochs = min(2, seeds), 2
    num_train, num_test = (520, 300) if options.quick else (NUM_TRAIN, 10_000)
    found: dict[str, object] = {
        "machine": describe_machine(), "cores": cores, "seeds": seeds, "epochs": epochs, "train": num_train,
        "test": num_test,
    }  # fmt: skip
    jobs = [(name, seed, epochs, num_train, num_test) for name in options.only for seed in range(seeds)]
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        for (name, *_), rows in zip(jobs, pool.map(measure, jobs), strict=True):
            found.setdefault(name, []).extend(rows)
    found["seconds"] = time.perf_counter() - started
    publish(page(found), found, options.out)


if __name__ == "__main__":
    main()
