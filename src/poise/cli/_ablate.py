"""`poise ablate`."""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from poise._text import visible
from poise.cli._asked import missing_target, numbered_folder, read_recipe
from poise.cli._guard import say
from poise.cli._tables import print_table

if TYPE_CHECKING:
    from poise import AblationProgress, AblationResult

_SECONDS_BETWEEN_LINES = 1.0


@dataclass(frozen=True)
class AblateOptions:
    """What the command line asked for."""

    data: Path
    target: str | None
    out: Path | None
    recipe: str
    design: str
    margin: float
    blocks: int
    time: float | None
    seed: int
    resume: bool
    as_json: bool

    @property
    def folder(self) -> Path:
        """The run folder: as given, or the first free one of ablation, ablation-2, ...; the last one when resuming."""
        return self.out or numbered_folder("ablation", resume=self.resume)

    @property
    def resume_command(self) -> str:
        """The command that continues this run."""
        words = ["poise", "ablate", str(self.data), "--target", self.target or "", "--out", str(self.folder)]
        words += ["--recipe", self.recipe, "--design", self.design, "--margin", f"{self.margin:g}"]
        words += ["--blocks", str(self.blocks), *([] if self.time is None else ["--time", f"{self.time:g}"])]
        return shlex.join([*words, "--seed", str(self.seed), "--resume", *(["--json"] if self.as_json else [])])


def run_ablate(options: AblateOptions) -> None:
    """Run the experiment, write the page, print the outcome."""
    from poise import ablate, write_ablation_page

    if options.target is None:
        raise missing_target(options.data)
    folder = options.folder
    result = ablate(
        options.data,
        target=options.target,
        recipe=read_recipe(options.recipe),
        design=cast("Any", options.design),  # checked by `ablate`
        margin=options.margin,
        max_blocks=options.blocks,
        time_limit=options.time,
        seed=options.seed,
        out=folder,
        resume=options.resume,
        progress=_Lines().show,
    )
    write_ablation_page(result, folder / "report.html")
    if options.as_json:
        plain = result.to_dict()
        del plain["runs"]  # they are in result.json
        typer.echo(json.dumps(plain, allow_nan=False))
    else:
        _print(result)


class _Lines:
    """A line a second, and one at the end of each stage."""

    def __init__(self) -> None:
        self.said_at = -_SECONDS_BETWEEN_LINES

    def show(self, now: AblationProgress) -> None:
        is_last = now.num_ended == now.num_trainings
        if now.note:
            say(now.note)
        elif is_last or time.monotonic() - self.said_at >= _SECONDS_BETWEEN_LINES:
            self.said_at = time.monotonic()
            say(
                f"blocks {now.first_block + 1} to {now.last_block + 1}: {now.num_ended} of {now.num_trainings} "
                f"trainings, {now.seconds:.1f} s"
            )


def _print(result: AblationResult) -> None:
    effects = [(visible(one.name), one) for one in result.effects]
    header = ("ingredient", f"effect on test {result.loss_name}", "blocks", "verdict")
    print_table(header, [(name, one.shown("loss"), str(one.num_blocks), one.verdict) for name, one in effects])
    typer.echo("")
    rows = [
        (
            name,
            one.shown("gap"),
            one.shown("steps"),
            one.shown("seconds"),
            f"{one.reached_with} / {one.reached_without}",
        )
        for name, one in effects
        if one.kind != "pair"
    ]
    print_table(("ingredient", "effect on gap", "steps to target", "seconds", "reached with / without"), rows)
    typer.echo(
        "With it minus without it; negative helps. Target: the lowest validation loss of the bare network. Steps and "
        "seconds: a factor; where the target is not reached, all that were planned count."
    )
    if result.design == "pairs":
        typer.echo("A × B: what the two do together beyond the sum of what each does.")
    typer.echo(result.verdict)
    for warning in result.warnings:
        typer.echo(f"Note: {visible(warning, max_length=400)}")
    typer.echo(f"Report: {visible(Path(result.run_folder) / 'report.html', max_length=400)}")
