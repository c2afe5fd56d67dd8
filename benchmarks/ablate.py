"""Whether `poise.ablate` finds what matters and claims nothing else, and what it says of eight tables.

    python -m benchmarks.ablate [--sets german ames] [--blocks 20] [--out docs/ablate_measured.md]

Three parts. Differences: 200 simulated families of five ingredients, of which one helps, one hurts and three do
nothing, with the correlation that shared rows give. Trainings: `poise.ablate` itself on simulated tables with small
networks. Tables: the known recipe "cocktail" on real tables. Results of trainings and tables are kept under
benchmarks/results/ablate and are not measured again; an interrupted table goes on where it was. The page goes to
`--out` and to stdout.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import poise
from benchmarks.datasets import cache, load
from benchmarks.quality import SETS
from benchmarks.quality import _processor as processor
from poise.methods import EMA, Dropout, GaussianNoise, WeightDecay
from poise.tuning._decisions import Decision, decide
from poise.tuning._looks import Looks

RESULTS = Path(__file__).parent / "results" / "ablate"
HELPER, HURTER, IDLE = "network.num_bins", "Dropout", ("WeightDecay", "EMA", "GaussianNoise")
_CLAIMS = ("helps", "hurts")
_VERSIONS = ("python", "poise", "torch", "numpy")


# Differences

LOOKS = Looks((5, 10, 15, 20), 0.25)
Noise = Callable[[np.random.Generator, int], NDArray[np.float64]]


@dataclass(frozen=True)
class Scene:
    """How simulated differences are made.

    Args:
        name: For the table.
        effect: Of the helper and the hurter, in standard deviations of a block's difference.
        correlation: Of two blocks; 0.2 is what 5 folds are taken to give.
        heavy: Whether the noise has the tails of Student's t with 4 degrees.
    """

    name: str
    effect: float
    correlation: float = 0.2
    heavy: bool = False

    def draw(self, rng: np.random.Generator, effect: float) -> NDArray[np.float64]:
        """The differences of 20 blocks."""
        num = LOOKS.counts[-1]
        own = rng.standard_t(4, size=num) / np.sqrt(2) if self.heavy else rng.normal(size=num)
        shared: float = rng.normal()
        mixed: NDArray[np.float64] = np.sqrt(self.correlation) * shared + np.sqrt(1 - self.correlation) * own
        return effect + mixed


SCENES = (
    Scene("as assumed, ±3", 3.0),
    Scene("as assumed, ±2", 2.0),
    Scene("as assumed, ±1", 1.0),
    Scene("independent blocks, ±3", 3.0, correlation=0.0),
    Scene("heavy tails, ±3", 3.0, heavy=True),
    Scene("more correlation than assumed, ±3", 3.0, correlation=0.35),
)


@dataclass(frozen=True)
class Tally:
    """How a number of runs went.

    Args:
        name: Of the scene.
        runs: Number.
        found: Runs in which the helper was said to help and the hurter to hurt.
        false: Runs with any false claim: an idle ingredient that helps or hurts, a helper or hurter without effect or
            of the wrong sign.
        idle: Idle ingredients of all runs that were said to have no effect.
        blocks: Mean number of blocks at which an ingredient was decided or given up.
    """

    name: str
    runs: int
    found: int
    false: int
    idle: int
    blocks: float

    @property
    def row(self) -> list[str]:
        """A row of a table."""
        shares = (self.found / self.runs, self.false / self.runs, self.idle / self.runs / len(IDLE))
        return [self.name, str(self.runs), *(f"{share:.1%}" for share in shares), f"{self.blocks:.1f}"]


Outcome = dict[str, tuple[str, int]]  # verdict and blocks by ingredient


def tally(name: str, outcomes: list[Outcome]) -> Tally:
    """Count what was found and what was claimed falsely."""
    found = sum(one[HELPER][0] == "helps" and one[HURTER][0] == "hurts" for one in outcomes)
    false = sum(
        any(one[idle][0] in _CLAIMS for idle in IDLE)
        or one[HELPER][0] in ("hurts", "no effect")
        or one[HURTER][0] in ("helps", "no effect")
        for one in outcomes
    )
    idle = sum(one[name][0] == "no effect" for one in outcomes for name in IDLE)
    blocks = float(np.mean([number for one in outcomes for _, number in one.values()]))
    return Tally(name, len(outcomes), found, false, idle, blocks)


def simulate_differences(scene: Scene, num_runs: int) -> Tally:
    """Decide `num_runs` families."""
    rng = np.random.default_rng(SCENES.index(scene))
    effects = {HELPER: -scene.effect, HURTER: scene.effect, **dict.fromkeys(IDLE, 0.0)}
    outcomes = []
    for _ in range(num_runs):
        family = {name: scene.draw(rng, effect) for name, effect in effects.items()}
        said: dict[str, Decision] = decide(family, LOOKS.counts[-1], LOOKS, margin=0.5 * scene.effect)
        outcomes.append({name: (one.verdict, one.num_blocks) for name, one in said.items()})
    return tally(scene.name, outcomes)


# Trainings

Kept = dict[str, dict[str, Any]]  # verdict, blocks and interval by ingredient

TINY = poise.Recipe(
    methods=(GaussianNoise(std=0.01), Dropout(p=0.5), WeightDecay(weight_decay=1e-4), EMA(decay=0.5)),
    optimizer=poise.known("bare").optimizer,
    budget=poise.Budget(max_epochs=30, batch_size=32),
    network=poise.Network(width=16, depth=1, num_bins=16),
)


def simulated_table(seed: int, num_rows: int = 400) -> pl.DataFrame:
    """A number that depends on two columns by steps, which bins see and straight lines do not, beside four of noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_rows, 6))
    y = np.sign(np.sin(3 * x[:, 0])) + np.sign(np.sin(3 * x[:, 1])) + 0.3 * rng.normal(size=num_rows)
    return pl.DataFrame({**{f"x{number}": x[:, number] for number in range(6)}, "y": y})


def train_simulated(num_runs: int) -> list[Kept]:
    """Ablations of simulated tables; those that were done before are read."""
    path = RESULTS / "simulated.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    done: list[Kept] = []
    if path.exists():
        done = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for seed in range(len(done), num_runs):
        started = time.perf_counter()
        result = poise.ablate(simulated_table(seed), target="y", recipe=TINY, margin=0.02, seed=seed)
        single = [one for one in result.effects if one.kind == "ingredient"]
        done.append(
            {one.name: {"verdict": one.verdict, "blocks": one.num_blocks, **asdict(one.loss)} for one in single}
        )
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(done[-1]) + "\n")
        say(f"simulated {seed}: {result.verdict} {time.perf_counter() - started:.1f} s")
    return done[:num_runs]


def count_trained(kept: list[Kept]) -> tuple[Tally, float]:
    """The tally, and the share of intervals that hold the mean effect over all tables."""
    outcomes = [{name: (one["verdict"], one["blocks"]) for name, one in run.items()} for run in kept]
    held = []
    for name in (HELPER, HURTER):
        truth = np.mean([run[name]["value"] for run in kept])
        held += [run[name]["low"] <= truth <= run[name]["high"] for run in kept]
    return tally("small networks", outcomes), float(np.mean(held))


# Tables


def measure(name: str, max_blocks: int) -> poise.AblationResult:
    """The ablation of a table, read if it was done before."""
    path = RESULTS / f"{name}.json"
    if path.exists():
        return poise.AblationResult.from_dict(json.loads(path.read_text(encoding="utf-8")))
    table, target, _ = load(name)
    # A run goes on only as the recipe that it was begun with, which may get new settings.
    digest = hashlib.sha256(poise.to_toml(poise.known("cocktail")).encode()).hexdigest()[:8]
    folder = cache() / "ablate" / f"{name}-{max_blocks}-{digest}"
    result = poise.ablate(table, target=target, max_blocks=max_blocks, out=folder, resume=True)
    plain = result.to_dict() | {"run_folder": "", "source": name}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain, sort_keys=True) + "\n", encoding="utf-8")
    return poise.AblationResult.from_dict(plain)


# The page


def page(differences: list[Tally], trainings: tuple[Tally, float] | None, tables: list[poise.AblationResult]) -> str:
    """The measurement as Markdown."""
    return "\n".join([*_opening(), *_simulations(differences, trainings), *_tables(tables)])


def _opening() -> Iterator[str]:
    yield "# What mattered, as measured"
    yield ""
    yield _wrapped(
        "`python -m benchmarks.ablate` wrote this page. [Ablation](ablate.md) says how effects, intervals and verdicts "
        "are made."
    )
    yield ""


def _simulations(differences: list[Tally], trainings: tuple[Tally, float] | None) -> Iterator[str]:
    head = ["", "runs", "both found", "any false claim", "idle: no effect", "blocks"]
    yield "## Where the truth is known"
    yield ""
    yield _wrapped(
        "Five ingredients, of which one helps, one hurts and three do nothing. First, simulated differences of 20 "
        "blocks, looked at after every 5; effects are in standard deviations of a block's difference, the margin is "
        "half of them. A false claim is an idle ingredient that helps or hurts, or one with an effect that is said to "
        "have none or the wrong sign. Blocks: the mean number at which an ingredient was decided or given up."
    )
    yield ""
    yield from _markdown([head, *(one.row for one in differences)])
    yield ""
    if trainings is not None:
        yield _wrapped(
            "Then `poise.ablate` itself, with real trainings of small networks on simulated tables of 400 rows, each "
            f"table drawn anew. The target depends on two of six columns by steps; `{HELPER}` helps, `{HURTER}` of "
            "half the units hurts, and weight decay, averaging and noise are too weak to matter. Held: how many of the "
            "intervals of helper and hurter hold the mean effect over all tables."
        )
        yield ""
        tallied, held = trainings
        yield from _markdown([[*head, "held"], [*tallied.row, f"{held:.1%}"]])
        yield ""


def _tables(tables: list[poise.AblationResult]) -> Iterator[str]:
    if not tables:
        return
    yield "## Real tables"
    yield ""
    yield _wrapped(
        'The known recipe "cocktail", each ingredient left out in turn. An effect is the test loss with it minus that '
        "without it, on the same rows with the same random numbers: nats, or squared error in units of the target's "
        "variance. **Bold** effects are decided; `=` marks those within the margin; the others cannot be told from "
        "nothing. Brackets hold the interval that decides."
    )
    yield ""
    names = [one.name for one in tables[0].effects]
    rows = [["ingredient", *(f"{one.source}" for one in tables)]]
    rows += [[name, *(_cell(one, name) for one in tables)] for name in names]
    rows.append(["margin", *(f"±{one.margin:.4f}" for one in tables)])
    rows.append(["blocks", *(str(one.num_blocks) for one in tables)])
    rows.append(["trainings", *(str(len(one.runs)) for one in tables)])
    yield from _markdown(rows)
    yield ""
    yield "## Gap, steps and seconds"
    yield ""
    yield _wrapped(
        "Effect on the gap (test minus training loss), and factor on the steps to the lowest validation loss of the "
        "bare network, with 95 % intervals that are not corrected for many ingredients; where the target was not "
        "reached, all steps that were planned count."
    )
    yield ""
    for one in tables:
        yield f"### {one.source}"
        yield ""
        yield _wrapped(one.verdict)
        yield ""
        head = ["ingredient", "gap", "steps", "seconds", "reached with / without"]
        body = [
            [effect.name, effect.shown("gap"), effect.shown("steps"), effect.shown("seconds"),
             f"{effect.reached_with} / {effect.reached_without}"]
            for effect in one.effects
        ]  # fmt: skip
        yield from _markdown([head, *body])
        yield ""
    versions = ", ".join(f"{name} {value}" for name, value in tables[0].environment.items() if name in _VERSIONS)
    yield _wrapped(f"{processor()}, {tables[0].environment['threads']} thread(s); {versions}. Seconds were taken on a "
                   "machine that others used too; steps do not depend on it.")  # fmt: skip
    yield ""


def _cell(result: poise.AblationResult, name: str) -> str:
    one = next((effect for effect in result.effects if effect.name == name), None)
    if one is None or one.loss is None:
        return ""
    value = f"{one.loss.value:+z.4f}"
    shown = {"helps": f"**{value}**", "hurts": f"**{value}**", "no effect": f"= {value}"}.get(one.verdict, value)
    return f"{shown} [{one.loss.low:+z.4f}, {one.loss.high:+z.4f}]"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _markdown(rows: list[list[str]]) -> list[str]:
    head, *body = ("| " + " | ".join(row) + " |" for row in rows)
    return [head, "|---" + "|--:" * (len(rows[0]) - 1) + "|", *body]


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Measure, write the page, print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="*", default=SETS, choices=SETS)
    parser.add_argument("--blocks", type=int, default=20, help="most trainings of an arm on a table")
    parser.add_argument("--runs", type=int, default=200, help="simulated families of differences")
    parser.add_argument("--trained", type=int, default=200, help="simulated tables with trainings")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    differences = [simulate_differences(scene, options.runs) for scene in SCENES]
    trained = train_simulated(options.trained)
    tables = []
    for name in options.sets:
        tables.append(measure(name, options.blocks))
        say(f"{name}: {tables[-1].verdict} {tables[-1].seconds:.0f} s")
    text = page(differences, count_trained(trained) if trained else None, tables)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
