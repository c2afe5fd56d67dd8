"""`poise predict`."""

from __future__ import annotations

import json
from pathlib import Path

import typer

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def run_predict(run: Path, data: Path, out: Path | None, *, as_json: bool) -> None:
    """Predict, and write a CSV file or standard output."""
    from poise import load, predict_table, read_table

    table = predict_table(load(run), read_table(data))
    # A spreadsheet would run text that begins like a formula.
    table = table.rename({name: _harmless(name) for name in table.columns})
    if table["prediction"].dtype == "String":
        table = table.with_columns(table["prediction"].map_elements(_harmless, return_dtype=table["prediction"].dtype))
    if as_json:
        typer.echo(json.dumps({"rows": table.to_dicts()}, allow_nan=False))
    elif out is None:
        typer.echo(table.write_csv(), nl=False)
    if out is not None:
        _write(out, table.write_csv())


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
