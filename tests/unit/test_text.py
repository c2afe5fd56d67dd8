import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poise._text import visible


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("age", "age"),
        ("é 漢字 🦊", "é 漢字 🦊"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\x00\x7f", r"\x00\x7f"),
        ("\ud800", r"\ud800"),
        ("\u202e\u200b\ufeff", r"\u202e\u200b\ufeff"),
        ("\u2028", r"\u2028"),
        (3.5, "3.5"),
        (None, "None"),
    ],
)
def test_what_cannot_be_seen_is_spelled_out(text, expected):
    assert visible(text) == expected


def test_long_text_is_cut():
    assert visible("x" * 60) == "x" * 60
    assert visible("x" * 61) == "x" * 59 + "…"
    assert visible("x" * 61, max_length=61) == "x" * 61


@given(st.text(st.characters(exclude_categories=())), st.integers(2, 40))
def test_every_text_becomes_one_printable_line(text, max_length):
    shown = visible(text, max_length=max_length)
    assert len(shown) <= max_length
    assert shown.encode("utf-8").decode("utf-8") == shown
    assert len(shown.splitlines()) <= 1
    assert not any(unicodedata.category(character) in ("Cc", "Cf", "Cs") for character in shown)
