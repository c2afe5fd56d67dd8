"""What every benchmark does with its page."""

from __future__ import annotations

import json
from pathlib import Path


def publish(page: str, found: dict[str, object], out: Path | None) -> None:
    """Write the page to `out`, if there is one, and to stdout, followed by all numbers as one line of JSON."""
    if out:
        out.write_text(page, encoding="utf-8")
    print(page)
    print(json.dumps(found))
