"""`poise doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from poise.cli._guard import FAILED
from poise.cli._tables import print_table


def run_doctor(*, as_json: bool) -> None:
    """Print what the self-test finds; fail if anything is not as it should be."""
    from poise import self_test

    checks = self_test()
    if as_json:
        typer.echo(json.dumps({"checks": [asdict(check) for check in checks]}))
    else:
        print_table(("what", "found"), [(check.name, check.value) for check in checks])
    if not all(check.ok for check in checks):
        raise typer.Exit(FAILED)
