"""Tables on stdout."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns aligned: with rules on a terminal, plain text elsewhere. Cells are text, never markup.

    Args:
        header: One cell a column; the first column is aligned left, the others right.
        rows: Of the same length.
    """
    if sys.stdout.isatty():
        _print_rich(header, rows)
        return
    widths = [max(len(row[index]) for row in (header, *rows)) for index in range(len(header))]
    for row in (header, *rows):
        first, *others = (
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        typer.echo("  ".join((first, *others)).rstrip())


def _print_rich(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(header):
        table.add_column(Text(name), justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        style = "bold" if row[0].startswith("* ") else None
        table.add_row(*(Text(cell) for cell in row), style=style)
    Console().print(table)
