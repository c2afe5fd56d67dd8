"""The environment of the rivals: a venv beside the tables, made from nothing, left alone once it is right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.datasets import cache

PINS = {
    "torch": "2.13.0",
    "pytabkit": "1.7.3",
    "lightgbm": "4.7.0",
    "catboost": "1.2.10",
    "xgboost": "3.2.0",
    "scikit-learn": "1.9.1",
}
_EXTRAS = {"pytabkit": "[models]"}
# RealMLP's wrapper looks for Lightning's trainer, which `[models]` brings with it.
_ASK = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"


def python() -> Path:
    """The interpreter of the rivals."""
    return cache() / "peers" / "bin" / "python"


def missing() -> list[str]:
    """The pins that the environment does not keep."""
    command = [str(python()), "-c", _ASK, *PINS]
    if not python().exists():
        return list(PINS)
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    if asked.returncode:
        return list(PINS)
    found = json.loads(asked.stdout)
    # A build for CPUs calls itself "2.13.0+cpu".
    return [name for name, pin in PINS.items() if found[name].partition("+")[0] != pin]


def set_up() -> bool:
    """Make the environment; whether there was anything to do.

    Raises:
        RuntimeError: If the pins cannot be installed together.
    """
    if not missing():
        return False
    if not python().exists():
        subprocess.run([sys.executable, "-m", "venv", str(cache() / "peers")], check=True)
    # torch first and by itself, so that no other package chooses its build.
    for names in (["torch"], [name for name in PINS if name != "torch"]):
        wanted = [f"{name}{_EXTRAS.get(name, '')}=={PINS[name]}" for name in names]
        subprocess.run([str(python()), "-m", "pip", "install", "--quiet", *wanted], check=True)
    if left := missing():
        raise RuntimeError(
            f"{python()} lacks {', '.join(f'{name}=={PINS[name]}' for name in left)}: delete the folder."
        )
    return True
