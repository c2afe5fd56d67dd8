"""Names from outside, made fit for a page, a picture or a terminal."""

from __future__ import annotations

import unicodedata

_MAX_LENGTH = 60


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


def _spell(character: str) -> str:
    # Cc control, Cf formatting and direction, Cs surrogates, Co private, Zl and Zp line breaks.
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
    return character.encode("unicode_escape").decode("ascii") if hidden else character
