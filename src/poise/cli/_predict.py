"""`poise predict`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from poise._text import visible

if TYPE_CHECKING:
    from polars import DataFrame

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def run_predict(run: Path, data: Path, out: Path | None, *, as_json: bool) -> None:
    """Predict, and write a CSV file or standard output."""
    from poise import load, predict_table, read_table

    table = predict_table(load(run), read_table(data))
    if as_json:
        typer.echo(json.dumps({"rows": table.to_dicts()}, allow_nan=False))
    elif out is None:
        _print(_to_csv(table))
    if out is not None:
        _write(out, _to_csv(table))


def _to_csv(table: DataFrame) -> str:
    from polars import Series, String

    labels = table["prediction"]
    if labels.dtype == String:
        # A spreadsheet would run text that begins like a formula. The other headers begin with "probability".
        harmless = [f"'{label}" if label.startswith(_FORMULA) else label for label in labels]
        table = table.with_columns(Series("prediction", harmless))
    return table.write_csv()


def _print(text: str) -> None:
    if sys.stdout.isatty():
        # A label may hold codes that a terminal obeys.
        typer.echo("\n".join(visible(line, max_length=sys.maxsize) for line in text.split("\n")), nl=False)
        return
    # The bytes that `--out` writes, whatever the locale says.
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()


def _write(path: Path, text: str) -> None:
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")  # a device or a pipe must not be replaced by a file
        return
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
