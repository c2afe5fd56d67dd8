"""Progress of a fit on stderr: a bar on a terminal, otherwise one line an epoch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from poise.cli._guard import say

if TYPE_CHECKING:
    from poise import Progress

Show = Callable[["Progress"], None]


@contextmanager
def showing_progress() -> Iterator[Show]:
    """What to call after every epoch."""
    if sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _line


def _line(now: Progress) -> None:
    if now.note:
        say(now.note)
        return
    say(
        f"{now.name} ({now.index + 1} of {now.num_networks}): epoch {now.epoch} of {now.max_epochs}, "
        f"validation loss {now.val_loss:.4f}, {now.seconds:.1f} s"
    )


@contextmanager
def _bar() -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    # Names are ours or a recipe's; markup=False keeps whatever a file name may hold from being read as markup.
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[loss]}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bars:
        tasks: dict[int, int] = {}

        def show(now: object) -> None:
            if now.note:  # type: ignore[attr-defined]
                bars.console.print(now.note, markup=False)  # type: ignore[attr-defined]
                return
            index, name, total = now.index, now.name, now.max_epochs  # type: ignore[attr-defined]
            if index not in tasks:
                tasks[index] = int(bars.add_task(name, total=total, loss=""))
            loss = f"validation loss {now.val_loss:.4f}"  # type: ignore[attr-defined]
            bars.update(tasks[index], completed=now.epoch, loss=loss)  # type: ignore[attr-defined,arg-type]

        yield show
