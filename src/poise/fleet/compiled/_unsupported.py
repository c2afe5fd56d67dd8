"""What the compiled engine cannot do."""

from __future__ import annotations


class Unsupported(Exception):  # noqa: N818 - not an error: another engine does it
    """Names a method, layer or dtype that has no machine code; the plan goes to another engine."""
