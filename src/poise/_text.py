"""Names from outside, made fit for a page, a picture or a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_MAX_LENGTH = 60
_MOST_NAMES = 20


def visible(text: object, *, max_length: int = _MAX_LENGTH) -> str:
    r"""`text` on one line, with control characters, direction marks and lone surrogates spelled out, and cut if long.

    Args:
        text: Anything that comes from a user's file.
        max_length: Characters kept, ≥ 2.

    Example:
        >>> visible("a\x1b[31m\ud800")
        'a\\x1b[31m\\ud800'
    """
    spelled = "".join(_spell(character) for character in str(text))
    return spelled if len(spelled) <= max_length else spelled[: max_length - 1] + "…"


def listed(names: Sequence[str]) -> str:
    """The first names, quoted, and how many more there are.

    Example:
        >>> listed(["a", "b"]), listed("abcdefghijklmnopqrstuvwxyz")[-19:]
        ("'a', 'b'", "'s', 't' and 6 more")
    """
    return ", ".join(repr(name) for name in names[:_MOST_NAMES]) + and_more(len(names) - _MOST_NAMES)


def and_more(num_names: int) -> str:
    """What follows names after which `num_names` are left out; nothing if none are."""
    return f" and {num_names:,} more" if num_names > 0 else ""


def _spell(character: str) -> str:
    # Cc control, Cf formatting and direction, Cs surrogates, Co private, Zl and Zp line breaks.
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
    return character.encode("unicode_escape").decode("ascii") if hidden else character
