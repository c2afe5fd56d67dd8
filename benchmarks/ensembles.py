"""Dropout against ensembles at equal cost, out-of-bag scores against test scores, and the coverage of intervals.

    python -m benchmarks.ensembles [--sets german phoneme] [--seeds 2] [--epochs 160] [--runs 50] [--splits 50]
                                   [--out docs/ensembles_measured.md] [--quick]

Progress goes to stderr. The page goes to `--out` and to stdout, followed by all numbers as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch

from benchmarks._ensembles_arms import Problem, Row, compare, problem, recipe
from benchmarks._roofs import describe_machine
from benchmarks.quality import _markdown, _wrapped
from poise import Bagging, ConformalIntervals, ConformalSets, DeepEnsemble, Network
from poise._random import Key
from poise.ensemble._held_out import Estimate, measure
from poise.fleet import default_engines

SETS = ("german", "phoneme", "contraceptive", "wa_churn", "concrete", "Wage")
BAGGED = ("phoneme", "wa_churn", "Wage")
COVERED = ("phoneme", "contraceptive", "concrete", "Wage")
NUM_BAGGED, COVERAGE = 1000, 0.9
SMALL = Network(width=64, depth=2, numeric="quantile", num_bins=16)


@dataclass(frozen=True)
class BagRun:
    """One run of bagging.

    Args:
        table: Name of the table.
        seed: Of split and training.
        loss: Out-of-bag loss with its 95 % interval.
        score: Out-of-bag accuracy, or R², likewise.
        test_loss: Of the whole ensemble on the test rows, with its own interval.
        test_score: Likewise.
    """

    table: str
    seed: int
    loss: Estimate
    score: Estimate
    test_loss: Estimate
    test_score: Estimate


@dataclass(frozen=True)
class Covered:
    """How often intervals or sets held the truth over many splits into calibration and test rows.

    Args:
        table: Name of the table.
        kind: Of intervals or sets.
        mean: Share of the test rows, mean over splits.
        low: The lowest of the splits.
        high: The highest of the splits.
        size: Mean width in standard deviations of the target, or mean number of classes.
    """

    table: str
    kind: str
    mean: float
    low: float
    high: float
    size: float


def note(text: str) -> None:
    """One line of progress."""
    print(text, file=sys.stderr, flush=True)


def bag(name: str, seed: int, num_members: int, epochs: int) -> BagRun:
    """Out-of-bag and test scores of one bagging."""
    one = problem(name, seed, num_train=NUM_BAGGED)
    made = Bagging(num_members=num_members).train(
        one.train, one.task, _small(epochs), seed=seed, engines=default_engines(1)
    )
    said = made.predictor.predict(one.test.table).numpy()
    test = measure(
        one.task, said, one.test.target, one.test.weight, scale=one.scale, key=Key(seed).stream("test rows")
    )  # fmt: skip
    run = BagRun(name, seed, made.held_out.loss, made.held_out.score, *test)
    note(f"bagging {name} {seed}: out-of-bag {run.loss.value:.4f}, test {run.test_loss.value:.4f}")
    return run


def _small(epochs: int):
    whole = recipe(epochs)
    return type(whole)(whole.methods, whole.optimizer, whole.budget, SMALL)


def cover(name: str, num_splits: int, epochs: int) -> list[Covered]:
    """Coverage over splits of the rows that an ensemble was not trained on."""
    one = problem(name, 0, test=0.6)
    made = DeepEnsemble(num_members=5).train(one.train, one.task, _small(epochs), engines=default_engines(1))
    said = made.predictor.member_predictions(one.test.table).numpy()
    kinds = ("intervals", "scaled intervals") if one.task.kind == "regression" else ("lac", "aps")
    found = []
    for kind in kinds:
        splits = [_covered(one, said, kind, Key(0).stream("calibration").at(split)) for split in range(num_splits)]
        shares, sizes = zip(*splits, strict=True)
        found.append(Covered(name, kind, fmean(shares), min(shares), max(shares), fmean(sizes)))
        note(f"coverage {name} {kind}: {found[-1].mean:.3f}")
    return found


def _covered(one: Problem, said: np.ndarray, kind: str, key: Key) -> tuple[float, float]:
    order = key.permutation(said.shape[1]).numpy()
    fit, test = order[: len(order) // 2], order[len(order) // 2 :]
    mean, target = said.mean(0), one.test.target
    if one.task.kind == "regression":
        scale = said.std(0) if kind.startswith("scaled") else np.ones(len(mean))
        fitted = ConformalIntervals.fit(mean[fit], target[fit], coverage=COVERAGE, scale=scale[fit])
        low, high = fitted.predict(mean[test], scale=scale[test])
        return float(((low <= target[test]) & (target[test] <= high)).mean()), float((high - low).mean()) / np.sqrt(
            one.scale
        )
    codes = target.astype(np.int64)
    sets = ConformalSets.fit(mean[fit], codes[fit], coverage=COVERAGE, method=kind).predict(mean[test])
    return float(sets[np.arange(len(test)), codes[test]].mean()), float(sets.sum(1).mean())


def page(found: dict[str, object], settings: argparse.Namespace) -> str:
    """The measurement as Markdown."""
    rows: Sequence[Row] = found["rows"]
    epochs = settings.epochs
    return "\n".join(
        [
            "# Ensembles, as measured",
            "",
            f"`python -m benchmarks.ensembles --epochs {epochs} --seeds {settings.seeds}` wrote this page.",
            "",
            "## Dropout against ensembles at equal cost",
            "",
            _wrapped(
                f"Every arm gets {epochs} epochs of a network of two layers of 256 in all: one network {epochs}, each "
                f"of 20 members {epochs // 20}, each schedule spanning its own epochs. Shared members (Gorishniy et "
                "al., 2025) are one network through which each row passes once for each of them, with its own scales "
                "of the inputs and its own head. The last two arms get five times as many. Of each training, and of "
                "each cycle, the epoch with the lowest validation loss predicts, and of the cycles the first ones "
                "whose average has it; none ends early, so that costs are equal. A fifth of "
                "the training rows "
                f"validates, 40 % of all rows are test rows. Means over {settings.seeds} seed(s), each with its own "
                "split. Loss: nats, or squared error in units of the target's variance."
            ),
            "",
            *_table(rows, "loss", "{:.4f}"),
            "",
            "Rank: among arms of equal cost, 1 is the lowest, mean over tables. Bold: the lowest of them.",
            "",
            "Expected calibration error, 15 bins, tables with classes:",
            "",
            *_table([row for row in rows if row.ece is not None], "ece", "{:.4f}"),
            "",
            "Seconds of the processor, the lowest of the seeds: training and, in brackets, predicting in float64:",
            "",
            *_seconds(rows),
            "",
            *_bag_part(found["bags"]),
            *_cover_part(found["covered"], settings.splits),
            "## Where",
            "",
            _wrapped(f"{found['machine']}; one core used. On a GPU nothing was measured."),
            "",
        ]
    )


def _table(rows: Sequence[Row], field: str, form: str) -> list[str]:
    arms, tables = (list(dict.fromkeys(getattr(row, name) for row in rows)) for name in ("arm", "table"))
    means = np.array(
        [
            [fmean(getattr(row, field) for row in rows if (row.arm, row.table) == (arm, table)) for table in tables]
            for arm in arms
        ]
    ).reshape(len(arms), len(tables))
    costs = [next(row.cost for row in rows if row.arm == arm) for arm in arms]
    equal = means[[cost == 1 for cost in costs]]
    lines = [["", *tables, "rank"]]
    for arm, values, cost in zip(arms, means, costs, strict=True):
        ranks = (equal < values).sum(0) + 1
        cells = [form.format(value) for value in values]
        if cost == 1:
            cells = [f"**{cell}**" if rank == 1 else cell for cell, rank in zip(cells, ranks, strict=True)]
        lines.append([arm, *cells, f"{ranks.mean():.1f}" if cost == 1 else ""])
    return _markdown(lines)


def _seconds(rows: Sequence[Row]) -> list[str]:
    arms, tables = (list(dict.fromkeys(getattr(row, name) for row in rows)) for name in ("arm", "table"))
    lines = [["", *tables]]
    for arm in arms:
        cells = []
        for table in tables:
            own = [row for row in rows if (row.arm, row.table) == (arm, table)]
            training, predicting = (
                min(getattr(row, f"{part}_seconds") for row in own) for part in ("train", "predict")
            )
            cells.append(f"{training:.1f} ({predicting:.2f})")
        lines.append([arm, *cells])
    return _markdown(lines)


def _bag_part(runs: Sequence[BagRun]) -> list[str]:
    lines = [["", "runs", "loss in interval", "score in interval", "difference of losses holds 0", "mean difference"]]
    for name in (*dict.fromkeys(run.table for run in runs), "all"):
        own = [run for run in runs if name in (run.table, "all")]
        shares = (
            fmean(run.test_loss.value in run.loss for run in own),
            fmean(run.test_score.value in run.score for run in own),
            fmean(_holds_zero(run.loss, run.test_loss) for run in own),
        )
        gap = fmean(run.loss.value - run.test_loss.value for run in own)
        lines.append([name, str(len(own)), *(f"{100 * share:.0f} %" for share in shares), f"{gap:+.4f}"])
    return [
        "## Out-of-bag scores",
        "",
        _wrapped(
            f"`Bagging` on {NUM_BAGGED:,} rows drawn anew for each run; all other rows are test rows. How often the "
            "test loss and score lay within the 95 % interval of the out-of-bag ones, which says nothing of the noise "
            "of the test rows; how often an interval for the difference with the noise of both holds 0; and by how "
            "much the out-of-bag loss, of fewer members, is higher."
        ),
        "",
        *_markdown(lines),
        "",
    ]


def _holds_zero(one: Estimate, other: Estimate) -> bool:
    """By the widths of both intervals, taken as those of normal distributions."""
    spread = ((one.high - one.low) ** 2 + (other.high - other.low) ** 2) ** 0.5 / 2
    return abs(one.value - other.value) <= spread


def _cover_part(found: Sequence[Covered], num_splits: int) -> list[str]:
    lines = [["", "kind", "coverage", "lowest", "highest", "size"]]
    for one in found:
        shares = (f"{100 * share:.1f} %" for share in (one.mean, one.low, one.high))
        lines.append([one.table, one.kind, *shares, f"{one.size:.2f}"])
    return [
        "## Conformal coverage",
        "",
        _wrapped(
            f"Asked for {100 * COVERAGE:.0f} %, over {num_splits} splits of the rows that an ensemble of five was not "
            "trained on, half to calibrate and half to test. Size: mean width in standard deviations of the target, or "
            "mean number of classes. Intervals are scaled by the standard deviation over members."
        ),
        "",
        *_markdown(lines),
        "",
    ]


def main() -> None:
    """Measure, write the page, print it and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=160)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--splits", type=int, default=50)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true", help="a minute, to see that it runs")
    settings = parser.parse_args()
    if settings.quick:
        settings.sets, settings.seeds, settings.epochs, settings.runs, settings.splits = ["german"], 1, 20, 3, 3
    torch.set_num_threads(1)
    for engine in default_engines(1):
        engine.prepare([])  # compiling is no part of any arm's seconds
    members, epochs = (4, 3) if settings.quick else (20, 30)
    found: dict[str, object] = {"machine": describe_machine(), "rows": []}
    for name in settings.sets:
        for seed in range(settings.seeds):
            found["rows"] += compare(problem(name, seed), seed, settings.epochs)
            note(f"{name} {seed}: " + ", ".join(f"{row.arm} {row.loss:.4f}" for row in found["rows"][-8:]))
    found["bags"] = [bag(BAGGED[run % len(BAGGED)], run, members, epochs) for run in range(settings.runs)]
    found["covered"] = [one for name in COVERED for one in cover(name, settings.splits, epochs)]
    text = page(found, settings)
    if settings.out:
        settings.out.write_text(text, encoding="utf-8")
    print(text)
    print(json.dumps({**found, **{name: [asdict(one) for one in found[name]] for name in ("rows", "bags", "covered")}}))


if __name__ == "__main__":
    main()
