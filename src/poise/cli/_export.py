"""`poise export`."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from poise._text import visible
from poise.cli._tables import print_table


def run_export(run: Path, out: Path, *, as_json: bool) -> None:
    """Write the network or ensemble of a run as ONNX, and print what goes in and comes out."""
    from poise import export

    written = export(run, out)
    columns = [
        {"column": one.column, "input": one.input, "kind": one.kind, "missing": list(one.missing)}
        for one in written.columns
    ]
    if as_json:
        plain = {"path": str(written.path), "opset": written.opset, "columns": columns}
        typer.echo(json.dumps({**plain, "outputs": list(written.outputs), "difference": written.difference}))
        return
    print_table(("input", "kind"), [(visible(one.input), one.kind) for one in written.columns])
    typer.echo(f"Outputs: {', '.join(visible(name) for name in written.outputs)}")
    typer.echo(f"Largest difference to what Poise predicts: {written.difference:.2g}")
    typer.echo(f"Written: {visible(written.path, max_length=400)}")
