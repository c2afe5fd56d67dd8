import io
import sys

import pytest

from poise import __version__
from poise.cli import main
from poise.estimators import Check


def test_the_version_is_that_of_the_package(poise):
    assert poise("--version").stdout == f"poise {__version__}\n"


def test_without_a_command_the_commands_are_listed(poise):
    text = poise().output
    for name in ("fit", "ablate", "predict", "doctor"):
        assert f"  {name} " in text


@pytest.mark.parametrize("name", ["fit", "ablate", "predict", "doctor"])
def test_every_option_is_explained(poise, name):
    lines = poise(name, "--help").stdout.splitlines()
    options = [line for line in lines if line.strip().startswith("--")]
    assert options
    assert all(len(line.split()) > 2 for line in options)


def test_a_terminal_that_does_not_know_a_letter_gets_its_code(monkeypatch):
    stream = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(stream, encoding="latin-1"))
    monkeypatch.setattr(sys, "argv", ["poise", "doctor"])
    monkeypatch.setattr("poise.self_test", lambda: (Check("漢字", "R²"),), raising=False)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    sys.stdout.flush()
    assert rb"\u6f22\u5b57" in stream.getvalue()
    assert "R²".encode("latin-1") in stream.getvalue()
