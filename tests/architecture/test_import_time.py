"""`import poise` and `poise --help` are quick, because they import nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "scipy", "sklearn", "polars", "pandas", "pyarrow", "narwhals", "matplotlib", "jinja2")
HELP = """
import sys
sys.argv = ["poise", {arguments}]
try:
    from poise.cli import main
    main()
except SystemExit:
    pass
"""


def heavy_after(code: str) -> list[str]:
    """Which heavy packages a fresh Python has imported after `code`."""
    report = f"import sys, json; sys.stderr.write(json.dumps([n for n in {HEAVY} if n in sys.modules]))"
    command = [sys.executable, "-c", f"{code}\n{report}"]
    found: list[str] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stderr)
    return found


def test_importing_the_package_is_light():
    assert heavy_after("import poise; dir(poise); poise.__version__") == []


@pytest.mark.parametrize("arguments", ["'--help'", "'fit', '--help'", "'predict', '--help'", "'--version'"])
def test_help_is_light(arguments):
    assert heavy_after(HELP.format(arguments=arguments)) == []


def test_the_first_use_of_a_name_imports_it():
    assert "torch" in heavy_after("import poise; poise.PoiseClassifier")


def test_settings_errors_come_without_torch():
    assert heavy_after("from poise import ConfigError; ConfigError('x')") == []
