"""Waiting for threads, so that Ctrl-C is heard."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from typing import Any

# A library may have asked that signals do not interrupt system calls (polars does), so a wait without end would not
# hear Ctrl-C.
_SECONDS = 0.05


def wait_for_all(futures: Sequence[Future[Any]]) -> None:
    """Until all are done or one has failed."""
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, timeout=_SECONDS, return_when=FIRST_EXCEPTION)
        if any(one.exception() is not None for one in done):
            return
