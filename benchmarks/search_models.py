"""What `poise.search` finds for a small image network, and what side by side is worth for which models.

    python -m benchmarks.search_models [--seeds 3] [--trials 16] [--epochs 9] [--pairs 3]
        [--keep measured.json] [--out docs/search_models_measured.md]

The images are Fashion-MNIST's (see `benchmarks._images`). Stacks are timed in seconds of the processor, not of the
clock, in interleaved pairs. Progress goes to stderr; the page goes to `--out` and to stdout, followed by all numbers
as JSON. With `--keep`, each part is written to a file when it is measured, and not measured again.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean, median, stdev

import torch
from torch import nn

from benchmarks import _images
from benchmarks._publish import publish
from benchmarks._roofs import describe_machine
from poise import AdamW, Budget, Cosine, Float, OneOf, Recipe, SearchResult, Space, search
from poise.fleet.modules import Job, Member, ModuleState, PlainLoop, StackedLoop, build, source_of
from poise.methods import EMA, L2, BatchNorm, Dropout, LabelSmoothing, Mixup, WeightDecay
from poise.tuning import HalvingOptions, ModuleArena, Proposer, Race

TRAIN, VAL = 3000, 1500
cross_entropy = nn.functional.cross_entropy


def note(text: str) -> None:
    """One line of progress."""
    print(text, file=sys.stderr, flush=True)


# Models


def small_conv() -> nn.Module:
    """Two convolutions and a hidden layer: what one writes first for such images."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 49, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def mlp(features: int, width: int) -> Callable[[], nn.Module]:
    """Two hidden layers."""
    return lambda: nn.Sequential(
        nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )


def table(rows: int, features: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random numbers and classes: only time is measured on them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, features, generator=generator), torch.randint(10, (rows,), generator=generator)


def part(images: _images.Images, number: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Some images as a pair."""
    few = _images.draw(images, number, seed)
    return few.x, few.y


# Side by side


def measure_stack(name: str, job: Job, variants: int, pairs: int) -> dict[str, object]:
    """Processor seconds of an epoch of one variant, alone and in a stack."""
    recipe = Recipe(methods=(Dropout(p=0.2),), optimizer=AdamW(), budget=Budget(batch_size=128))
    alone = PlainLoop(job, recipe, ModuleState())
    stack = StackedLoop(job, [Member(recipe, ModuleState(), build(job, recipe)) for _ in range(variants)])

    def seconds(loop: PlainLoop | StackedLoop, share: int) -> float:
        started = time.process_time()
        loop.run_epoch()
        return (time.process_time() - started) / share

    seconds(alone, 1), seconds(stack, variants), seconds(stack, variants)  # recorded, and warm
    found = [(seconds(alone, 1), seconds(stack, variants)) for _ in range(pairs)]
    ratios = [one / other for one, other in found]
    result = {
        "name": name, "variants": variants, "gain": median(ratios), "low": min(ratios), "high": max(ratios),
    }  # fmt: skip
    note(f"{name} x {variants}: {result['gain']:.2f} ({result['low']:.2f} to {result['high']:.2f})")
    return result


def measure_stacks(images: _images.Images, pairs: int) -> list[dict[str, object]]:
    """Of small and large models."""
    few = part(images, 1000, 0), part(images, 256, 1)
    fewer = part(images, 384, 0), part(images, 256, 1)
    cases = [
        ("perceptron 16-32-32-10", mlp(16, 32), (table(12000, 16, 0), table(256, 16, 1))),
        ("perceptron 64-128-128-10", mlp(64, 128), (table(12000, 64, 0), table(256, 64, 1))),
        ("perceptron 256-512-512-10", mlp(256, 512), (table(6000, 256, 0), table(256, 256, 1))),
        ("small convolutional", small_conv, few),
        ("DenseNet-like", lambda: _images.dense_net(0.0), fewer),
    ]
    few_only = ("perceptron 256-512-512-10", "DenseNet-like")
    found = []
    for name, factory, (train, val) in cases:
        for variants in (4,) if name in few_only else (4, 16):
            job = Job(factory, source_of(train, "train"), source_of(val, "val"), cross_entropy, 10**6)
            found.append(measure_stack(name, job, variants, pairs))
    return found


# Search

BASE = Recipe(optimizer=AdamW(lr=Cosine(1e-3)), budget=Budget(batch_size=64))
SPACE = Space(
    BASE,
    {
        "norm": OneOf(None, BatchNorm()),
        "dropout": OneOf(None, Dropout()),
        "decay": OneOf(None, WeightDecay()),
        "penalty": OneOf(None, L2()),
        "mix": OneOf(None, Mixup()),
        "smoothing": OneOf(None, LabelSmoothing()),
        "average": OneOf(None, EMA(decay=0.99)),
        "Dropout.p": Float(0.05, 0.6),
        "WeightDecay.weight_decay": Float(1e-3, 0.3, log=True),
        "L2.strength": Float(1e-6, 1e-3, log=True),
        "Mixup.alpha": Float(0.05, 0.6),
        "LabelSmoothing.smoothing": Float(0.01, 0.15),
        "optimizer.lr": Float(3e-4, 1e-2, log=True),
    },
)


def accuracy(outputs: torch.Tensor, y: torch.Tensor) -> float:
    """Share that is right."""
    return float((outputs.argmax(1) == y).float().mean())


def epochs_of(result: SearchResult) -> int:
    """All epochs that were trained."""
    return sum(one.epochs for one in result.trials)


def measure_search(
    train: _images.Images, test: _images.Images, seed: int, trials: int, epochs: int
) -> dict[str, object]:
    """A search, and its base trained to the end: both scored on all test images."""
    both = _images.draw(train, TRAIN + VAL, seed)
    rows = {"train": (both.x[:TRAIN], both.y[:TRAIN]), "val": (both.x[TRAIN:], both.y[TRAIN:])}
    started = time.process_time()
    result = search(
        small_conv, SPACE, **rows, test=(test.x, test.y), loss=cross_entropy, metric=accuracy, trials=trials,
        max_epochs=epochs, seed=seed,
        progress=lambda all_: note(f"  seed {seed}: {len(all_)} trials, {sum(one.epochs for one in all_)} epochs"),
    )  # fmt: skip
    seconds = time.process_time() - started
    base_loss, base_accuracy = base_scores(rows, test, seed, epochs)
    found = {
        "seed": seed, "epochs": epochs_of(result), "full": trials * epochs, "seconds": seconds,
        "val_loss": result.val_loss, "gap": result.gap, "test_loss": result.test_loss, "accuracy": result.test_metric,
        "base_loss": base_loss, "base_accuracy": base_accuracy,
        "recipe": [type(one).__name__ for one in result.recipe.methods], "lr": result.recipe.optimizer.lr.start,
    }  # fmt: skip
    note(f"seed {seed}: {found}")
    return found


@torch.no_grad()
def base_scores(rows: dict[str, object], test: _images.Images, seed: int, epochs: int) -> tuple[float, float]:
    """Test loss and accuracy of the base recipe, of its best epoch by validation."""
    job = Job(small_conv, source_of(rows["train"], "train"), source_of(rows["val"], "val"), cross_entropy, epochs, seed)
    with torch.enable_grad():
        arena = ModuleArena(job)
        arena.enter({0: BASE})
        arena.advance({0: epochs})
    model = arena.model(0).model
    outputs = torch.cat([model(x) for x, _ in test.batches(500)])
    return float(cross_entropy(outputs, test.y)), accuracy(outputs, test.y)


def measure_halving(train: _images.Images, trials: int, epochs: int) -> dict[str, object]:
    """The same proposals without learning (random), raced and all trained to the end."""
    import optuna

    both = _images.draw(train, TRAIN + VAL, 100)
    job = Job(
        small_conv, source_of((both.x[:TRAIN], both.y[:TRAIN]), "train"),
        source_of((both.x[TRAIN:], both.y[TRAIN:]), "val"), cross_entropy, epochs,
    )  # fmt: skip
    found: dict[str, object] = {}
    options = HalvingOptions(num_trials=trials, patience=10**6)
    for name, one in (("halving", options), ("full", replace(options, num_rungs=1))):
        proposer = Proposer(SPACE, sampler=optuna.samplers.RandomSampler(seed=0))
        race = Race(ModuleArena(job), proposer, one)
        all_ = race.run()
        losses = sorted(trial.loss for trial in race.complete)
        found[name] = {"epochs": sum(trial.epochs for trial in all_), "best": losses[0]}
        note(f"{name}: {found[name]}")
    return found


# The page


def page(found: dict[str, object]) -> str:
    """The measurement as Markdown."""
    runs, halving = found["searches"], found["halving"]
    lines = [
        "# Searching recipes for your own network, as measured", "",
        "`python -m benchmarks.search_models` wrote this page.", "",
        "## A small image network", "",
        f"Fashion-MNIST, {TRAIN:,} images to learn from, {VAL:,} to choose, all 10,000 test images to score once. The "
        "network has two convolutions and a hidden layer of 128; its base recipe is Adam with a cosine and nothing "
        f"else. The space has seven methods with their strengths, and the learning rate; {found['trials']} trials of "
        f"at most {found['epochs']} epochs. *Base* is trained to the end, with the "
        "weights of its best epoch by validation, too; its learning rate is the default, so part of what is gained is "
        "the learning rate's.", "",
        "| seed | epochs trained | of all | CPU seconds | test loss, base | test loss, found | accuracy, base "
        "| accuracy, found | found |", "|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]  # fmt: skip
    for one in runs:
        methods = ", ".join(one["recipe"]) or "none"
        lines.append(
            f"| {one['seed']} | {one['epochs']} | {one['full']} | {one['seconds']:.0f} | {one['base_loss']:.4f} "
            f"| **{one['test_loss']:.4f}** | {one['base_accuracy']:.2%} | **{one['accuracy']:.2%}** | {methods}, "
            f"lr {one['lr']:.2g} |"
        )
    lines += ["", *_summary(runs), ""]
    full, raced = halving["full"], halving["halving"]
    lines += [
        f"{found['trials']} random recipes of the same space, raced and all trained to the end: {raced['epochs']} "
        f"against {full['epochs']} epochs, {full['epochs'] / raced['epochs']:.1f} times fewer; best validation loss "
        f"{raced['best']:.4f} against {full['best']:.4f}.", "",
        "## Side by side", "",
        "Processor seconds of one epoch of one model alone, over its share of an epoch of a stack of V, on one core; "
        "medians of interleaved pairs, with their range. Batches of 128; 12,000 or 6,000 rows for perceptrons, 1,000 "
        "or 384 images for the others. Dropout in each.", "",
        "| model | V | gain | range |", "|---|--:|--:|--:|",
    ]  # fmt: skip
    for one in found["stacks"]:
        lines.append(
            f"| {one['name']} | {one['variants']} | **{one['gain']:.2f}** | {one['low']:.2f} to {one['high']:.2f} |"
        )
    lines += [
        "", "Hence the rule of `engine=\"auto\"`: on a CPU, networks with convolutions train alone. On a GPU nothing "
        "was measured.", "", "## Where", "",
        f"{found['machine']}; one core used, on a machine that others used, too.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _summary(runs: list[dict[str, object]]) -> list[str]:
    gains = [one["base_loss"] - one["test_loss"] for one in runs]
    points = [100 * (one["accuracy"] - one["base_accuracy"]) for one in runs]
    if len(runs) < 2:
        return [f"Test loss {gains[0]:.4f} lower, accuracy {points[0]:.2f} points higher; one seed."]
    errors = [stdev(one) / math.sqrt(len(runs)) for one in (gains, points)]
    return [
        f"Over {len(runs)} seeds, with standard errors: test loss {mean(gains):.4f} ± {errors[0]:.4f} lower than the "
        f"base's, accuracy {mean(points):.2f} ± {errors[1]:.2f} points higher."
    ]


class Kept:
    """Parts of the measurement, on disk as soon as they are there.

    Args:
        path: Of the file; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.parts = json.loads(path.read_text("utf-8")) if path is not None and path.exists() else {}

    def part(self, name: str, measure: Callable[[], object]) -> object:
        """What was measured before under `name`, or is measured now."""
        if name not in self.parts:
            self.parts[name] = measure()
            if self.path is not None:
                self.path.write_text(json.dumps(self.parts), encoding="utf-8")
        return self.parts[name]


def main() -> None:
    """Measure, write the page, print it and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    train, test = _images.load("train"), _images.load("t10k")
    trials, epochs, kept = options.trials, options.epochs, Kept(options.keep)
    found: dict[str, object] = {
        "machine": describe_machine(), "trials": trials, "epochs": epochs,
        "stacks": kept.part("stacks", lambda: measure_stacks(train, options.pairs)),
        "halving": kept.part("halving", lambda: measure_halving(train, trials, epochs)),
        "searches": [
            kept.part(f"seed {seed}", lambda seed=seed: measure_search(train, test, seed, trials, epochs))
            for seed in range(options.seeds)
        ],
    }  # fmt: skip
    publish(page(found), found, options.out)


if __name__ == "__main__":
    main()
