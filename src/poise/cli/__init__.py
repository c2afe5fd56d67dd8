"""The command line: a thin door to the public names. Nothing heavy is imported before a command needs it."""

from poise.cli._app import main

__all__ = ["main"]
