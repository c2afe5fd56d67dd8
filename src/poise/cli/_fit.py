"""`poise fit`."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from poise._text import visible
from poise.cli._asked import missing_target, numbered_folder, read_recipe
from poise.cli._progress import showing_progress
from poise.cli._tables import print_table

if TYPE_CHECKING:
    from poise import FitResult, SearchNote


@dataclass(frozen=True)
class FitOptions:
    """What the command line asked for."""

    data: Path
    target: str | None
    out: Path | None
    time: float | None
    seed: int
    recipe: str
    quality: str
    resume: bool
    as_json: bool

    @property
    def folder(self) -> Path:
        """The run folder: as given, or the first free one of run, run-2, ...; the last one taken when resuming."""
        return self.out or numbered_folder("run", resume=self.resume)

    @property
    def resume_command(self) -> str:
        """The command that continues this run."""
        words = ["poise", "fit", str(self.data), "--target", self.target or "", "--out", str(self.folder)]
        words += [] if self.time is None else ["--time", f"{self.time:g}"]
        words += ["--seed", str(self.seed), "--recipe", self.recipe, "--quality", self.quality, "--resume"]
        return shlex.join([*words, *(["--json"] if self.as_json else [])])


def run_fit(options: FitOptions) -> None:
    """Fit, write the page, print the outcome."""
    from poise import fit, write_page

    if options.target is None:
        raise missing_target(options.data)
    folder = options.folder
    with showing_progress() as progress:
        result = fit(
            options.data,
            target=options.target,
            out=folder,
            time_limit="auto" if options.time is None else options.time,
            seed=options.seed,
            recipe=read_recipe(options.recipe),
            quality=cast(Any, options.quality),  # checked by `fit`
            resume=options.resume,
            progress=progress,
        )
    write_page(result, folder / "report.html")
    if options.as_json:
        typer.echo(json.dumps(_plain(result), allow_nan=False))
    else:
        _print(result)


def _plain(result: FitResult) -> dict[str, object]:
    plain = asdict(result)
    for candidate, one in zip(plain["candidates"], result.candidates, strict=True):
        del candidate["history"]
        candidate["gap"] = one.gap
    return plain


def _print(result: FitResult) -> None:
    header = ("network", f"train {result.score_name}", f"test {result.score_name} (95 %)", "gap", "epochs", "seconds")
    rows = [
        (
            ("* " if one.chosen else "  ") + visible(one.name),
            f"{one.train_score:.4f}",
            f"{one.test_score.value:.4f} [{one.test_score.low:.4f}, {one.test_score.high:.4f}]",
            f"{one.gap:+.4f}",
            str(one.epochs or ""),
            f"{one.seconds:.1f}",
        )
        for one in result.candidates
    ]
    print_table(header, rows)
    typer.echo(f"* chosen by validation. Gap: test {result.loss_name} minus training {result.loss_name}.")
    if result.search is not None:
        _print_search(result.search, result.loss_name)
    typer.echo(result.verdict)
    for warning in result.warnings:
        typer.echo(f"Note: {visible(warning, max_length=400)}")
    typer.echo(f"Report: {visible(Path(result.run_folder) / 'report.html', max_length=400)}")


def _print_search(search: SearchNote, loss_name: str) -> None:
    folds = f"{search.num_folds} folds" if search.num_folds > 1 else "one split"
    typer.echo(
        f"Search: {_count(search.num_trials, 'recipe')}, {search.num_complete} trained to the end of "
        f"{search.max_epochs} epochs, on {folds}, in {search.seconds:.0f} s."
    )
    losses = f"ensemble {search.loss:.4f}, best recipe {search.single_loss:.4f}"
    typer.echo(
        f"Validation {loss_name} on rows that had no part in the choice: "
        f"{losses if len(search.members) > 1 else f'{search.loss:.4f}'}."
    )
    for one in search.members:
        typer.echo(
            f"  {one.weight:5.0%}  trial {one.trial}, {visible(one.origin)}, {_count(one.num_networks, 'network')}"
        )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
