import io
import sys

import pytest

from poise._text import visible
from poise.cli._progress import showing_progress
from poise.cli._tables import print_table
from poise.estimators import Progress

HEADER = ("network", "loss")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_columns_are_aligned_the_first_left_the_others_right(capsys):
    print_table(HEADER, [("bare", "1.5"), ("cocktail", "12.25")])
    assert capsys.readouterr().out == "network    loss\nbare        1.5\ncocktail  12.25\n"


def test_a_hostile_name_in_a_table_is_text(hostile, capsys):
    print_table(HEADER, [(visible(hostile), "1.5")])
    header, row = capsys.readouterr().out.splitlines()
    assert row == f"{visible(hostile)}  " + "1.5".rjust(len(header) - len(visible(hostile)) - 2)


def test_a_hostile_name_in_a_table_on_a_terminal_is_text(hostile, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    print_table(HEADER, [(visible(hostile), "1.5")])
    assert visible(hostile) in terminal.getvalue()
    assert "\x1b]" not in terminal.getvalue()


@pytest.mark.parametrize("no_color", [False, True])
def test_on_a_terminal_the_chosen_row_is_bold_and_no_color_is_honored(no_color, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    print_table(HEADER, [("* bare", "1.5")])
    assert "* bare" in terminal.getvalue()
    assert "\x1b[3" not in terminal.getvalue()  # bold may stay; colors may not


def test_progress_on_a_terminal_is_a_bar_on_stderr(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    with showing_progress() as show:
        for epoch in (1, 2):
            show(Progress("[/red]", 0, 1, epoch=epoch, max_epochs=2, val_loss=0.25, seconds=0.1))
    assert "[/red]" in terminal.getvalue()
    assert "validation loss 0.2500" in terminal.getvalue()
    assert capsys.readouterr().out == ""
