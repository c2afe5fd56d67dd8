"""What regularization buys on eight tables: test losses of the bare network, of each recipe and of the chosen one.

    python -m benchmarks.quality [--sets german ames] [--seeds 3] [--out docs/quality.md]

Progress goes to stderr. The page goes to `--out` and to stdout, followed by all numbers as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev

import poise
from benchmarks.datasets import load

SETS = ("german", "credit_data", "wa_churn", "contraceptive", "ames", "Wage", "SaratogaHouses", "concrete")
BARE, TREES = "bare", "HistGradientBoosting"
_VERSIONS = ("python", "poise", "torch", "numpy", "scikit-learn", "polars")


@dataclass(frozen=True)
class Measured:
    """One fit of one table with one seed; losses and scores by name of the network."""

    name: str
    seed: int
    task: str
    chosen: str
    test_loss: dict[str, float]
    test_score: dict[str, float]
    gap: dict[str, float]
    seconds: float
    environment: dict[str, str]


def measure(name: str, seed: int) -> Measured:
    """Fit one table with all known recipes."""
    table, target, _ = load(name)
    started = time.perf_counter()
    result = poise.fit(table, target=target, seed=seed)
    return Measured(
        name=name,
        seed=seed,
        task=result.task,
        chosen=result.chosen.name,
        test_loss={one.name: one.test_loss.value for one in result.candidates},
        test_score={one.name: one.test_score.value for one in result.candidates},
        gap={one.name: one.gap for one in result.candidates},
        seconds=time.perf_counter() - started,
        environment=result.environment,
    )


@dataclass(frozen=True)
class Summary:
    """The means over seeds of one table."""

    runs: tuple[Measured, ...]

    @property
    def test_loss(self) -> dict[str, float]:
        """Mean test loss of each network."""
        return {name: fmean(run.test_loss[name] for run in self.runs) for name in self.runs[0].test_loss}

    @property
    def chosen_loss(self) -> float:
        """Mean test loss of whichever network validation chose."""
        return fmean(run.test_loss[run.chosen] for run in self.runs)

    @property
    def changes(self) -> list[float]:
        """Chosen minus bare, for each seed on the same rows."""
        return [run.test_loss[run.chosen] - run.test_loss[BARE] for run in self.runs]

    @property
    def is_better(self) -> bool:
        """Whether the chosen networks have a lower mean test loss than the bare ones."""
        return fmean(self.changes) < 0


def page(summaries: Sequence[Summary], num_seeds: int) -> str:
    """The measurement as Markdown."""
    first = summaries[0].runs[0]
    versions = ", ".join(f"{name} {value}" for name, value in first.environment.items() if name in _VERSIONS)
    num_better = sum(one.is_better for one in summaries)
    return "\n".join(
        [
            "# What regularization buys, as measured",
            "",
            _wrapped(
                "`python -m benchmarks.quality` wrote this page. Each table is fitted with the defaults of `poise.fit` "
                f"for {num_seeds} seed(s); a seed names the split into training, validation and test rows as well as "
                "the weights. Losses are means over seeds of the loss on the test rows: cross-entropy in nats, or "
                "squared error in units of the target's variance. Lower is better."
            ),
            "",
            f"The chosen network has a lower mean test loss than the bare one on {num_better} of {len(summaries)} "
            "tables.",
            "",
            *_losses(summaries),
            "",
            "The change is chosen minus bare on the same rows, with its standard error over seeds.",
            "",
            "## Scores and gaps",
            "",
            *_scores(summaries),
            "",
            "Score: accuracy, or R². Gap: test loss minus training loss, both in eval mode.",
            "",
            "## Where",
            "",
            _wrapped(
                f"{_processor()}, {first.environment['cores']} cores, {first.environment['threads']} thread(s) a "
                f"process; {versions}."
            ),
            "",
            "The origin of wa_churn is unclear. The tables are described in `benchmarks/datasets.py`.",
            "",
        ]
    )


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _losses(summaries: Sequence[Summary]) -> list[str]:
    names = list(summaries[0].test_loss)
    rows = [["table", *names, "**chosen**", "change", "chosen, by seed", "seconds a fit"]]
    for one in summaries:
        losses = [f"{one.test_loss[name]:.4f}" for name in names]
        spread = f" ± {stdev(one.changes) / len(one.changes) ** 0.5:.4f}" if len(one.changes) > 1 else ""
        chosen = ", ".join(f"{name} {count}x" for name, count in Counter(run.chosen for run in one.runs).items())
        seconds = fmean(run.seconds for run in one.runs)
        change = f"{fmean(one.changes):+.4f}{spread}"
        rows.append([one.runs[0].name, *losses, f"**{one.chosen_loss:.4f}**", change, chosen, f"{seconds:.0f}"])
    return _markdown(rows)


def _scores(summaries: Sequence[Summary]) -> list[str]:
    rows = [["table", "bare score", "chosen score", f"{TREES} score", "bare gap", "chosen gap"]]
    for one in summaries:
        bare, chosen, trees = ([run.test_score[name or run.chosen] for run in one.runs] for name in (BARE, None, TREES))
        gaps = [[run.gap[name or run.chosen] for run in one.runs] for name in (BARE, None)]
        scores = [f"{fmean(values):.4f}" for values in (bare, chosen, trees)]
        rows.append([one.runs[0].name, *scores, *(f"{fmean(values):+.4f}" for values in gaps)])
    return _markdown(rows)


def _markdown(rows: list[list[str]]) -> list[str]:
    head, *body = ("| " + " | ".join(row) + " |" for row in rows)
    return [head, "|---" + "|--:" * (len(rows[0]) - 1) + "|", *body]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    """Measure, write the page, print it and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    summaries = []
    for name in options.sets:
        runs = []
        for seed in range(options.seeds):
            runs.append(measure(name, seed))
            last = runs[-1]
            print(
                f"{name} seed {seed}: {last.chosen} {last.test_loss[last.chosen]:.4f}, "
                f"bare {last.test_loss[BARE]:.4f}, {last.seconds:.0f} s",
                file=sys.stderr,
                flush=True,
            )
        summaries.append(Summary(tuple(runs)))
    text = page(summaries, options.seeds)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    print(text)
    print(json.dumps([asdict(run) for one in summaries for run in one.runs]))


if __name__ == "__main__":
    main()
