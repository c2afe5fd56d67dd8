"""Hostile names on the whole way: from a file through training to terminal, page, bundle and predictions."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from poise._text import visible

from ._tables import run_poise

FORMULA = ("=", "+", "-", "@")


def write_hostile(path, names, classes):
    """Each class four times, told apart by the first column."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow([*names, "the target [/red]"])
        for code, label in enumerate(classes * 4):
            first = code % len(classes) + 0.1 * rng.normal()
            writer.writerow([f"{first:.3f}", *(f"{one:.3f}" for one in rng.normal(size=len(names) - 1)), label])


@pytest.fixture(scope="module")
def names(hostile_names):
    """All but what no UTF-8 file can hold, or no CSV reader keeps."""
    return [name for name in hostile_names if not set(name) & set("\ud800\x00\r")]


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("hostile")
    data = folder / "[bold]a 'file'; $x {{ 7 * 7 }}.csv"
    write_hostile(data, names, names)
    words = ("--target", "the target [/red]", "--recipe", "bare", "--time", 2, "--out", folder / "run [/red]", "--json")
    return folder, data, run_poise("fit", data, *words)


def test_names_and_classes_of_any_kind_are_learnt(hostile_run, names):
    _, _, result = hostile_run
    assert result.exit_code == 0
    plain = json.loads(result.stdout)
    assert plain["task"] == "multiclass"
    assert [column["name"] for column in plain["columns"]] == names


def test_the_page_shows_every_column(hostile_run):
    folder, _, _ = hostile_run
    page = (folder / "run [/red]" / "report.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "onerror=alert(1)>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_predictions_hold_every_class_and_no_formula(hostile_run, names):
    folder, data, _ = hostile_run
    result = run_poise("predict", folder / "run [/red]", data)
    assert result.exit_code == 0
    rows = list(csv.reader(io.StringIO(result.stdout)))
    assert sorted(rows[0][1:]) == sorted(f"probability of {name}" for name in names)
    labels = [row[0] for row in rows[1:]]
    assert set(labels) <= {f"'{name}" if name.startswith(FORMULA) else name for name in names}
    assert any(label.startswith(("'=", "'+", "'-", "'@")) for label in labels)
    plain = json.loads(run_poise("predict", folder / "run [/red]", data, "--json").stdout)
    assert {row["prediction"] for row in plain["rows"]} <= set(names)


def test_a_missing_target_lists_every_column_as_text(hostile_run, names):
    _, data, _ = hostile_run
    result = run_poise("fit", data)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 3
    for name in names:
        assert visible(name) in result.stderr or len(result.stderr) > 2000


def test_a_target_of_any_name_that_does_not_exist_is_told(poise, table, hostile):
    result = poise("fit", table, "--target", hostile)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == "  repair: The columns are 'age', 'city', 'churn'."
    assert result.stderr.isprintable() or all(line.isprintable() for line in result.stderr.splitlines())


@pytest.mark.parametrize("name", [b"\xff.csv", "漢字.csv".encode()])
def test_a_file_name_of_any_bytes_is_read(poise, table, recipe, name):
    path = Path(name.decode("utf-8", "surrogateescape"))
    table.rename(path)
    result = poise("fit", path, "--target", "churn", "--recipe", recipe, "--time", 1, "--out", "run")
    assert result.exit_code == 0
    assert visible(path.name).replace(".csv", "") in Path("run", "report.html").read_text(encoding="utf-8")
