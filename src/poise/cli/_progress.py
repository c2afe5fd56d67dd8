"""Progress of a fit on stderr: bars on a terminal, otherwise one line an epoch, of a search one a second."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from poise.cli._guard import say

if TYPE_CHECKING:
    from poise import Progress

_SECONDS_BETWEEN_LINES = 1.0
Show = Callable[["Progress"], None]


@contextmanager
def showing_progress() -> Iterator[Show]:
    """What to call after every epoch."""
    if sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _Lines().show


class _Search:
    """How far a search is, from the epochs of its networks."""

    def __init__(self) -> None:
        self.started, self.epochs, self.networks = time.monotonic(), 0, set[int]()
        self.best, self.name = math.inf, ""

    def note(self, now: Progress) -> None:
        """Count one more epoch."""
        self.epochs += 1
        self.networks.add(now.index)
        if now.val_loss is not None and now.val_loss < self.best:
            self.best, self.name = now.val_loss, now.name

    def __str__(self) -> str:
        return (
            f"search: {self.epochs} epochs of {len(self.networks)} networks, best validation loss {self.best:.4f} "
            f"({self.name}), {time.monotonic() - self.started:.0f} s"
        )


class _Lines:
    def __init__(self) -> None:
        self.search, self.said_at = _Search(), -math.inf

    def show(self, now: Progress) -> None:
        if now.note:
            say(now.note)
        elif now.num_networks:
            say(
                f"{now.name} ({now.index + 1} of {now.num_networks}): epoch {now.epoch} of {now.max_epochs}, "
                f"validation loss {now.val_loss:.4f}, {now.seconds:.1f} s"
            )
        else:
            self.search.note(now)
            if time.monotonic() - self.said_at >= _SECONDS_BETWEEN_LINES:
                self.said_at = time.monotonic()
                say(str(self.search))


@contextmanager
def _bar() -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    # Names are ours or a recipe's; markup=False keeps whatever a file name may hold from being read as markup.
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[loss]}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bars:
        tasks: dict[int, int] = {}
        search = _Search()

        def show(now: object) -> None:
            if now.note:  # type: ignore[attr-defined]
                bars.console.print(now.note, markup=False)  # type: ignore[attr-defined]
                return
            if not now.num_networks:  # type: ignore[attr-defined]
                search.note(now)  # type: ignore[arg-type]
                if not tasks:
                    tasks[0] = int(bars.add_task("", total=None, loss=""))
                bars.update(tasks[0], description=str(search))  # type: ignore[arg-type]
                return
            index, name, total = now.index, now.name, now.max_epochs  # type: ignore[attr-defined]
            if index not in tasks:
                tasks[index] = int(bars.add_task(name, total=total, loss=""))
            loss = f"validation loss {now.val_loss:.4f}"  # type: ignore[attr-defined]
            bars.update(tasks[index], completed=now.epoch, loss=loss)  # type: ignore[attr-defined,arg-type]

        yield show
