"""Errors to messages and exit codes."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from types import FrameType

import typer

from poise._errors import BundleError, ConfigError, DataError, PoiseError, PoiseWarning, ResumeError
from poise._text import visible

FAILED, USAGE, BAD_DATA, BAD_BUNDLE, INTERRUPTED = 1, 2, 3, 4, 130
_CODES = ((ConfigError, USAGE), (ResumeError, USAGE), (DataError, BAD_DATA), (BundleError, BAD_BUNDLE))
_LONG = 2000


def guarded(command: Callable[[], None], *, as_json: bool, resume: str = "") -> None:
    """Run `command`; turn what goes wrong into a message on stderr and an exit code.

    Args:
        command: The body of a command.
        as_json: Whether the error is also printed as a JSON object on stdout.
        resume: The command that continues after an interruption, if there is one.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", PoiseWarning)
        warnings.showwarning = lambda message, *_, **__: say(f"note: {visible(message, max_length=_LONG)}")
        try:
            command()
        except PoiseError as error:
            code = next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)
            _fail(code, as_json, type(error).__name__, what=error.what, where=error.where, repair=error.repair)
        except KeyboardInterrupt:
            repair = f"Continue with: {resume}" if resume else None
            _fail(INTERRUPTED, as_json, "Interrupted", what="Interrupted.", repair=repair)
        except BrokenPipeError:
            # The reader of our output has gone, for example `| head`; there is nobody left to tell.
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - closed by the interpreter at exit
            raise typer.Exit(FAILED) from None
        except OSError as error:
            repair = "See that the folder exists, can be written and has room."
            where = error.filename and str(error.filename)
            _fail(FAILED, as_json, "OSError", what=f"{error.strerror or error}.", where=where, repair=repair)


def say(text: str) -> None:
    """A line on stderr."""
    typer.echo(text, err=True)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(
    code: int, as_json: bool, kind: str, *, what: str, where: str | None = None, repair: str | None = None
) -> None:
    parts = {"what": what, "where": where, "repair": repair}
    shown = {name: visible(part, max_length=_LONG) for name, part in parts.items() if part}
    say(f"error: {shown['what']}")
    for name in ("where", "repair"):
        if name in shown:
            say(f"  {name}: {shown[name]}")
    if as_json:
        typer.echo(json.dumps({"error": {"kind": kind, "exit_code": code, **shown}}))
    raise typer.Exit(code)
