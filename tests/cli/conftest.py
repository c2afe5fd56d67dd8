"""Small tables on disk, a run on one of them, and the commands in an empty folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from ._tables import RECIPE, run_poise, write_table


@pytest.fixture
def poise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return run_poise


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "churn.csv")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The folder of a run, read-only by agreement, beside `churn.csv`, and what the command said."""
    folder = tmp_path_factory.mktemp("fitted")
    (folder / "small.toml").write_text(RECIPE)
    data = write_table(folder / "churn.csv")
    words = ("--target", "churn", "--recipe", folder / "small.toml", "--time", 2, "--out", folder / "run", "--seed", 5)
    return folder / "run", run_poise("fit", data, *words)
