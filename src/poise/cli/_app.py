"""The commands and their options."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from poise import __version__
from poise.cli._guard import INTERRUPTED, guarded

app = typer.Typer(
    name="poise",
    help="Find out why a neural network overfits, dose its regularization, and prove that it helped.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 must not end a run
    try:
        app()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _leave_at_once()
        raise


def _leave_at_once() -> None:
    # An orderly end takes torch apart for a second or two, and who interrupts does not want to wait.
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(INTERRUPTED)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"poise {__version__}")
        raise typer.Exit


@app.callback()
def poise(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Find out why a neural network overfits, dose its regularization, and prove that it helped."""


@app.command()
def fit(
    data: Annotated[Path, typer.Argument(help="CSV, TSV or Parquet file, gzipped or not.", show_default=False)],
    target: Annotated[str | None, typer.Option("--target", "-t", help="Column to predict.", show_default=False)] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Run folder; run, run-2, ... if not given.", show_default=False)
    ] = None,
    time: Annotated[
        float | None,
        typer.Option(
            "--time",
            help="Seconds for all trainings together; 8, or 6 ms a row, times what the quality asks for.",
            min=0.01,
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Names all random numbers.", min=0)] = 0,
    recipe: Annotated[
        str, typer.Option("--recipe", help="auto to search, the name of a known recipe, or a TOML file.")
    ] = "auto",
    quality: Annotated[
        str, typer.Option("--quality", help="How much a search tries: fast, default, best.")
    ] = "default",
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    as_json: Json = False,
) -> None:
    """Search for the recipes that suit a table, average the best networks, prove them on untouched rows."""
    from poise.cli._fit import FitOptions, run_fit

    options = FitOptions(data, target, out, time, seed, recipe, quality, resume, as_json)
    guarded(lambda: run_fit(options), as_json=as_json, resume=options.resume_command)


@app.command()
def ablate(
    data: Annotated[Path, typer.Argument(help="CSV, TSV or Parquet file, gzipped or not.", show_default=False)],
    target: Annotated[str | None, typer.Option("--target", "-t", help="Column to predict.", show_default=False)] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Run folder; ablation, ablation-2, ... if none.", show_default=False),
    ] = None,
    recipe: Annotated[str, typer.Option("--recipe", help="Name of a known recipe, or a TOML file.")] = "cocktail",
    design: Annotated[
        str, typer.Option("--design", help="leave-one-out, add-one-in, or pairs for interactions too.")
    ] = "leave-one-out",
    margin: Annotated[
        float, typer.Option("--margin", help="Smallest effect that matters, as a share of the loss of a constant.")
    ] = 0.01,
    blocks: Annotated[int, typer.Option("--blocks", help="Most trainings of a variant of the recipe.", min=2)] = 20,
    time: Annotated[
        float | None, typer.Option("--time", help="Seconds; no limit if not given.", min=0.01, show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Names all random numbers.", min=0)] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    as_json: Json = False,
) -> None:
    """Find out which ingredients of a recipe mattered for a table, with intervals."""
    from poise.cli._ablate import AblateOptions, run_ablate

    options = AblateOptions(data, target, out, recipe, design, margin, blocks, time, seed, resume, as_json)
    guarded(lambda: run_ablate(options), as_json=as_json, resume=options.resume_command)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="Run folder or bundle.", show_default=False)],
    data: Annotated[Path, typer.Argument(help="Table with the columns of the training table.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="CSV file; standard output if not given.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict every row of a table with the chosen network of a run."""
    from poise.cli._predict import run_predict

    guarded(lambda: run_predict(run, data, out, as_json=as_json), as_json=as_json)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run folder or bundle.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="ONNX file to write, for example model.onnx.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Write the chosen network of a run as one ONNX file that takes the raw columns."""
    from poise.cli._export import run_export

    guarded(lambda: run_export(run, out, as_json=as_json), as_json=as_json)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Show versions and devices, and try whether Poise works on this machine."""
    from poise.cli._doctor import run_doctor

    guarded(lambda: run_doctor(as_json=as_json), as_json=as_json)
