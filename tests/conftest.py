"""Settings of all tests: reproducible property tests, and one thread, so that test processes share the cores."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)

# A machine under load is slow now and then; a deadline would fail tests that are right.
settings.register_profile(
    "pr", max_examples=50, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("pr")

# Names that have broken a page, a terminal, a picture or a spreadsheet before.
HOSTILE = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</td></tr></table>",
    "<!-- comment",
    "]]>",
    "&lt;b&gt; &amp; &#60;",
    "javascript:alert(1)",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "$\\frac$",
    "$x",
    "a_b^c$$",
    "[/red]",
    "[bold]loud[/bold]",
    "[link=file:///etc/passwd]here[/link]",
    "=cmd|'/c calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "bell\x07 null\x00 delete\x7f",
    "two\nlines\tand a tab\r",
    "lone \ud800 surrogate",
    "\u202eright to left",
    "zero\u200bwidth",
    "漢字 é 🦊",
    "x" * 300,
)


@pytest.fixture(scope="session")
def hostile_names() -> tuple[str, ...]:
    """All of them at once."""
    return HOSTILE


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with an argument `hostile` runs once for every hostile name."""
    if "hostile" in metafunc.fixturenames:
        metafunc.parametrize("hostile", HOSTILE, ids=[str(index) for index in range(len(HOSTILE))])
