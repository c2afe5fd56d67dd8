"""What the commands that train are asked in the same way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from poise._errors import ConfigError
from poise._text import and_more, visible

if TYPE_CHECKING:
    from poise import Recipe

_MOST_COLUMNS = 100  # that a message lists


def numbered_folder(stem: str, *, resume: bool) -> Path:
    """The first free folder of stem, stem-2, ...; the last one taken when resuming."""
    number = 1
    while _numbered(stem, number).exists():
        number += 1
    return _numbered(stem, max(1, number - 1) if resume else number)


def _numbered(stem: str, number: int) -> Path:
    return Path(stem if number == 1 else f"{stem}-{number}")


def read_recipe(text: str) -> Recipe | str:
    """The recipe in the TOML file `text`, or `text` itself, the name of one."""
    from poise import from_toml

    path = Path(text)
    if path.suffix != ".toml" and not path.is_file():
        return text
    try:
        return from_toml(path.read_text(encoding="utf-8"), source=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The recipe cannot be read: {error}.", where=str(path)) from error


def missing_target(data: Path) -> ConfigError:
    """What to say where no target was given: the columns of the table."""
    from poise import infer_schema, read_table

    schema = infer_schema(read_table(data))
    first = ", ".join(f"{visible(column.name)} ({column.kind})" for column in schema.columns[:_MOST_COLUMNS])
    return ConfigError(
        "The column to predict is missing.",
        where="--target",
        repair=f"Give one with --target. The columns: {first}{and_more(len(schema.columns) - _MOST_COLUMNS)}.",
    )
