"""Commands in this process, and small tables for them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from typer.testing import CliRunner, Result

from poise.cli._app import app

RECIPE = """
[budget]
max_epochs = 2
batch_size = 32
[network]
width = 8
depth = 1
[[methods]]
kind = "BatchNorm"
"""


def run_poise(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def write_table(
    path: Path, *, num_rows: int = 80, seed: int = 0, names: tuple[str, str, str] = ("age", "city", "churn")
):
    """Rows of a number, a category and a target of two classes."""
    rng = np.random.default_rng(seed)
    age, city = rng.normal(40, 10, num_rows), rng.choice(["Bern", "Rome", "Oslo"], num_rows)
    labels = np.where(age + 5 * (city == "Rome") + rng.normal(0, 3, num_rows) > 41, "yes", "no")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(zip((f"{one:.2f}" for one in age), city, labels, strict=True))
    return path
