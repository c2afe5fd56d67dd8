"""How fast fleets train, beside the same trainings in ordinary torch.

    python -m benchmarks.fleet [--pairs 7] [--only sizes stacked memory first_use ...] [--out docs/fleet.md]

Ratios are medians of interleaved pairs (ours, rival, ours, rival, ...), the rival in its best layout. Progress goes to
stderr; the page goes to `--out` and to stdout, followed by all numbers as one line of JSON.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl
import torch

from benchmarks._bfloat16 import measure_losses
from benchmarks._publish import publish
from benchmarks._rivals import OPTIMIZERS, SIZES, WIDE_BATCH, Rival, Size, table
from benchmarks._roofs import describe_machine, roofs
from poise.data import infer_schema
from poise.fleet import Engine, Fleet, PlainEngine, default_engines
from poise.fleet.compiled import CompiledEngine
from poise.fleet.stacked import StackedEngine
from poise.kernels.cpu._jit import HAS_BFLOAT16
from poise.methods import BatchNorm, Dropout, WeightDecay
from poise.recipe import AdamW, Budget, Network, Recipe
from poise.train import Binary, Dataset, Multiclass, Plan

FLEET = 32
_FLEETS = (1, 2, 8, 32, 128, 512)


def note(text: str) -> None:
    """One line of progress."""
    print(text, file=sys.stderr, flush=True)


def dataset(size: Size) -> Dataset:
    """The table of a size as a fleet takes it."""
    x, y = table(size)
    frame = pl.DataFrame({f"x{i}": column for i, column in enumerate(x.double().numpy().T)})
    return Dataset(frame, infer_schema(frame), y.double().numpy(), np.ones(len(y)))


def plans(size: Size, number: int, epochs: int) -> list[Plan]:
    """Trainings that differ in seed and dose."""
    rows = np.arange(size.rows + size.val_rows)
    task = Binary() if size.outputs == 1 else Multiclass(size.classes)
    made = []
    for seed in range(number):
        methods = (
            BatchNorm(),
            Dropout(p=size.p + 0.001 * seed / number, where="all"),
            WeightDecay(weight_decay=size.weight_decay),
        )
        recipe = Recipe(
            methods=methods,
            optimizer=AdamW(lr=1e-3),
            budget=Budget(max_epochs=epochs, batch_size=size.batch),
            network=Network(width=size.width, depth=size.depth),
        )
        made.append(Plan(f"{size.name}{seed}", recipe, task, rows[: size.rows], rows[size.rows :], seed=seed))
    return made


class OurFleet:
    """A fleet that goes on epoch by epoch."""

    def __init__(self, size: Size, number: int, threads: int, engines: Sequence[Engine] | None = None) -> None:
        torch.set_num_threads(threads)
        self.fleet = Fleet(plans(size, number, epochs=100_000), dataset(size), engines=engines)
        self.number, self.epoch = number, 0
        self.advance(1)

    def advance(self, epochs: int) -> float:
        """Seconds for that many epochs of all variants."""
        self.epoch += epochs
        started = time.perf_counter()
        self.fleet.advance(self.epoch)
        return time.perf_counter() - started

    def epochs_per_second(self, epochs: int) -> float:
        """Epochs of training and scoring a second, all variants together."""
        return epochs * self.number / self.advance(epochs)


def best_rival(size: Size, cores: int, precisions: Sequence[str]) -> Rival:
    """The fastest layout of ordinary torch."""
    best, best_pace = None, 0.0
    layouts = [(1, cores), (cores, 1)] if cores > 1 else [(1, 1)]
    for (processes, threads), optimizer, precision in itertools.product(layouts, OPTIMIZERS, precisions):
        rival = Rival(size, processes=processes, threads=threads, optimizer=optimizer, precision=precision)
        pace = max(rival.epochs_per_second(1) for _ in range(3))
        note(f"  {size.name}: torch, {rival.label}: {1e6 / pace / size.steps:.0f} us a step")
        if pace > best_pace:
            if best:
                best.close()
            best, best_pace = rival, pace
        else:
            rival.close()
    return best


def measure_size(
    size: Size, cores: int, pairs: int, engine: Engine | None = None, label: str = "",
    precisions: Sequence[str] = ("highest",),
) -> dict[str, object]:  # fmt: skip
    """The ratio of one size, on the fastest engine or on `engine`, to a rival that may have any of the precisions."""
    ours, rival = OurFleet(size, FLEET, cores, engine and [engine]), best_rival(size, cores, precisions)
    ours.epochs_per_second(3)
    found = []
    for _ in range(pairs):
        found.append((ours.epochs_per_second(5), rival.epochs_per_second(3)))
    rival.close()
    ratios = [a / b for a, b in found]
    micro = [1e6 / median(column) / size.steps for column in zip(*found, strict=True)]
    result = {
        "size": f"{size.name}, {label}" if label else size.name,
        "network": "-".join(map(str, [size.features, *[size.width] * size.depth, size.outputs])),
        "batch": size.batch,
        "ours_us": micro[0],
        "rival_us": micro[1],
        "rival": rival.label,
        "ratio": median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "gflops": size.flops / micro[0] / 1e3,
    }
    note(f"{size.name}: {micro[0]:.1f} us against {micro[1]:.0f}: {median(ratios):.1f}x")
    return result


def measure_memory(cores: int) -> list[dict[str, float]]:
    """Time and memory of one variant in fleets of every size."""
    size, rows = SIZES[0], []
    for number in _FLEETS:
        fleet = OurFleet(size, number, cores)
        epochs = max(2, 256 // number)
        busy = min(cores, number)
        seconds = min(fleet.advance(epochs) for _ in range(5)) * busy / epochs / number
        state = fleet.fleet.states[0]
        taken = sum(one.numel() * one.element_size() for one in state.tensors.values())
        rows.append({"variants": number, "core_ms_per_epoch": 1e3 * seconds, "variants_per_gib": 2**30 / taken})
        note(f"{number} variants: {1e3 * seconds:.2f} ms of a core an epoch")
    return rows


def measure_first_use() -> dict[str, float]:
    """Seconds until the first epoch on a new machine, and once more with the cache."""
    code = (
        "import time; s = time.perf_counter(); import torch; from poise.fleet.compiled._warm_up import warm_up;"
        "t = time.perf_counter(); warm_up(torch.float32); print(time.perf_counter() - t)"
    )
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        found = [
            float(subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout)
            for _ in range(2)
        ]
    note(f"first use {found[0]:.1f} s, from the cache {found[1]:.1f} s")
    return {"first": found[0], "cached": found[1]}


def measure_cross_validation(cores: int) -> dict[str, float]:
    """5 x 10 cross-validation of PoiseClassifier on segment: one fleet, and loops over single fits."""
    from sklearn.model_selection import RepeatedStratifiedKFold

    from benchmarks.datasets import load
    from poise import PoiseClassifier, cross_validate

    frame, target, _ = load("segment")
    frame = frame.to_pandas()
    X, y = frame.drop(columns=[target]), frame[target]
    folds = list(RepeatedStratifiedKFold(n_splits=10, n_repeats=5, random_state=0).split(X, y))
    torch.set_num_threads(cores)
    estimator = PoiseClassifier(recipe="batchnorm-2015", random_state=0)

    def fleet() -> float:
        started = time.perf_counter()
        scores = cross_validate(estimator, X, y, cv=folds)["test_score"]
        seconds = time.perf_counter() - started
        note(f"segment, fleet of 50: {seconds:.1f} s, accuracy {np.mean(scores):.4f}")
        return seconds

    def loop(label: str, engines: Sequence[Engine], every: int) -> float:
        some = folds[::every]
        started = time.perf_counter()
        for train, test in some:
            single = PoiseClassifier(recipe="batchnorm-2015", random_state=0)
            single._fit(X.iloc[train], y.iloc[train], engines=engines).score(X.iloc[test], y.iloc[test])
        seconds = (time.perf_counter() - started) * len(folds) / len(some)
        note(f"segment, loop of 50 single fits, {label}: {seconds:.1f} s")
        return seconds

    # Pieces of the loops stand between runs of the fleet, so that all meet the machine in the same moods.
    plain, fleets, compiled = [], [], []
    for _ in range(3):
        plain.append(loop("plain torch", [PlainEngine()], 10))
        fleets.append(fleet())
        compiled.append(loop("compiled", default_engines(), 5))
    torch.set_float32_matmul_precision("medium")
    half = median(fleet() for _ in range(3))
    torch.set_float32_matmul_precision("highest")
    pairs = zip(plain, fleets, strict=True)
    return {
        "fleet": median(fleets),
        "fleet_bfloat16": half,
        "loop_compiled": median(compiled),
        "loop_plain": median(plain),
        "ratio": median(rival / own for rival, own in pairs),
    }


def page(found: dict[str, object]) -> str:
    """The measurement as Markdown."""
    lines = ["# How fast fleets train, as measured", "", "`python -m benchmarks.fleet` wrote this page.", ""]
    if "sizes" in found:
        lines += [
            f"A fleet of {FLEET} networks with batch normalization, dropout and weight decay after every hidden layer, "
            "each with its own seed and dose, against the same training in torch in its best layout. Microseconds are "
            "for one step of one network on the whole machine, permutation, batches and the scores of training and "
            "validation rows after every epoch included; ours also measures exact statistics. Ratios are medians of "
            "interleaved pairs, with their range. Rows of the stacked engine are the same fleet on that engine, which "
            "takes any torch module.",
            "",
            "| size | network | batch | ours, us | torch, us | ratio | range | ours, GFLOP/s | best layout of torch |",
            "|---|---|--:|--:|--:|--:|--:|--:|---|",
        ]
        for one in [*found["sizes"], *found.get("stacked", ()), *found.get("bfloat16", ())]:
            lines.append(
                f"| {one['size']} | {one['network']} | {one['batch']} | {one['ours_us']:.1f} | {one['rival_us']:.0f} "
                f"| **{one['ratio']:.1f}x** | {one['low']:.1f} to {one['high']:.1f} | {one['gflops']:.0f} "
                f"| {one['rival']} |"
            )
        lines.append("")
    if "bfloat16_losses" in found:
        one = found["bfloat16_losses"]
        lines += [
            "In the rows of bfloat16, matrix products take factors of half precision and sum in float32, which is an "
            "option; torch may do so, too, and does where that is its best layout. Over "
            f"{one['trainings']} paired trainings on {', '.join(one['tables'])} it changes the test loss by "
            f"{one['change']:+.2%} (90 % interval {one['low']:+.2%} to {one['high']:+.2%}, over tables), which two "
            f"one-sided tests with a margin of 2 % find {'' if one['equivalent'] else 'not shown to be '}equivalent "
            f"(p = {max(one['p_worse'], one['p_better']):.1g}).",
            "",
        ]
    if "memory" in found:
        lines += ["| variants of S | ms of a core for an epoch of one | variants in a GiB |", "|--:|--:|--:|"]
        for one in found["memory"]:
            lines.append(f"| {one['variants']} | {one['core_ms_per_epoch']:.2f} | {one['variants_per_gib']:,.0f} |")
        lines.append("")
    if "first_use" in found:
        first = found["first_use"]
        lines += [
            f"First use on a machine: {first['first']:.0f} s of compiling; from then on {first['cached']:.1f} s.",
            "",
        ]
    if "cross_validation" in found:
        one = found["cross_validation"]
        lines += [
            "50 fits of `PoiseClassifier` on segment (5 x 10 cross-validation): "
            f"{one['fleet']:.1f} s as one fleet ({one['fleet_bfloat16']:.1f} s with products in bfloat16), "
            f"{one['loop_compiled']:.1f} s as a loop over single fits, {one['loop_plain']:.0f} s as a loop over single "
            f"fits on the plain engine (ordinary torch): the fleet is **{one['ratio']:.1f}x** as fast as that. Medians "
            "of three; of the loops every fifth and every tenth fit is measured.",
            "",
        ]
    roof = found["roofs"]
    lines += [
        "## Where",
        "",
        f"{found['machine']}; {found['cores']} cores used. Roofs by torch: {roof['torch_gemm_gflops']:.0f} GFLOP/s in "
        f"float32 products of 1024, {roof['copy_gb_per_s']:.0f} GB/s in copies. On a GPU: gpu.md.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, write the page, print it and the JSON."""
    parts = ("sizes", "stacked", "bfloat16", "memory", "first_use", "cross_validation")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    cores = options.cores
    found: dict[str, object] = {"machine": describe_machine(), "cores": cores, "roofs": roofs(cores)}
    if "sizes" in options.only:
        found["sizes"] = [measure_size(size, cores, options.pairs) for size in SIZES]
    if "stacked" in options.only:
        engine = StackedEngine(FLEET)
        sizes = (SIZES[0], WIDE_BATCH)
        found["stacked"] = [measure_size(size, cores, options.pairs, engine, "stacked") for size in sizes]
    if "bfloat16" in options.only and HAS_BFLOAT16:
        engine, both = CompiledEngine(cores, matmul="bfloat16"), ("highest", "medium")
        found["bfloat16"] = [measure_size(size, cores, options.pairs, engine, "bfloat16", both) for size in SIZES[1:]]
        found["bfloat16_losses"] = measure_losses()
    if "memory" in options.only:
        found["memory"] = measure_memory(cores)
    if "first_use" in options.only:
        found["first_use"] = measure_first_use()
    if "cross_validation" in options.only:
        found["cross_validation"] = measure_cross_validation(cores)
    publish(page(found), found, options.out)


if __name__ == "__main__":
    main()
