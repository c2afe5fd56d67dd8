import csv
import io
import json
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from poise import load, predict_table, read_table


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture
def run(fitted):
    return fitted[0]


@pytest.fixture
def data(fitted):
    return fitted[0].parent / "churn.csv"


def test_every_row_gets_a_prediction_and_a_probability_per_class(poise, run, data):
    result = poise("predict", run, data)
    assert result.exit_code == 0
    assert result.stderr == ""
    rows, expected = rows_of(result.stdout), predict_table(load(run), read_table(data)).to_dicts()
    assert len(rows) == len(expected) == 80
    for row, right in zip(rows, expected, strict=True):
        assert row["prediction"] == right["prediction"]
        for label in ("no", "yes"):
            assert float(row[f"probability of {label}"]) == right[f"probability of {label}"]


def test_a_file_gets_what_stdout_would(poise, run, data):
    text = poise("predict", run, data).stdout
    result = poise("predict", run, data, "-o", "out.csv")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert Path("out.csv").read_text() == text
    assert [path.name for path in Path().iterdir()] == ["out.csv"]


def test_json_holds_the_same_rows(poise, run, data):
    result = poise("predict", run, data, "--json")
    plain = json.loads(result.stdout, parse_constant=pytest.fail)
    assert plain["rows"] == predict_table(load(run), read_table(data)).to_dicts()


def test_columns_are_found_by_name_and_further_ones_ignored(poise, run, data):
    table = read_table(data)
    table.select("churn", "city", pl.lit(7).alias("extra"), "age").write_csv("other.csv")
    assert poise("predict", run, "other.csv").stdout == poise("predict", run, data).stdout


def test_the_target_may_be_missing_and_a_category_unknown(poise, run):
    Path("new.csv").write_text("city,age\nAtlantis,33\nBern,\n")
    result = poise("predict", run, "new.csv")
    assert result.exit_code == 0
    assert [row["prediction"] in ("yes", "no") for row in rows_of(result.stdout)] == [True, True]


def test_a_missing_column_is_named(poise, run):
    Path("new.csv").write_text("age\n33\n")
    result = poise("predict", run, "new.csv", "--json")
    assert result.exit_code == 3
    assert "city" in json.dumps(json.loads(result.stdout)["error"])


@pytest.mark.parametrize("member", ["manifest.json", None])
def test_a_damaged_bundle_is_refused(poise, run, data, member):
    shutil.copytree(run / "bundle", "bundle")
    names = sorted(path.name for path in Path("bundle").iterdir())
    path = Path("bundle", member or next(name for name in names if name.endswith(".safetensors")))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    result = poise("predict", "bundle", data)
    assert result.exit_code == 4
    assert result.stderr.startswith("error: ")
    assert result.stdout == ""


def test_a_folder_without_a_bundle_is_refused(poise, data):
    result = poise("predict", ".", data, "--json")
    assert result.exit_code == 4
    assert json.loads(result.stdout)["error"]["kind"] == "BundleError"


def test_a_device_is_written_to_and_never_replaced(poise, run, data):
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert poise("predict", run, data, "-o", "pipe").exit_code == 0
        assert os.read(reader, 10) == b"prediction"
        assert stat.S_ISFIFO(os.stat("pipe").st_mode)
    finally:
        os.close(reader)


@pytest.mark.parametrize("name", ["missing/out.csv", "."])
def test_an_output_that_cannot_be_written_fails_with_its_name(poise, run, data, name):
    result = poise("predict", run, data, "-o", name)
    assert result.exit_code == 1
    assert f"where: {name}" in result.stderr


def test_numbers_are_predicted_without_probabilities(poise):
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    pl.DataFrame({"x": x, "y": 100 + 7 * x}).write_csv("numbers.csv")
    assert poise("fit", "numbers.csv", "--target", "y", "--recipe", "bare", "--time", 1, "--out", "run").exit_code == 0
    rows = rows_of(poise("predict", "run", "numbers.csv").stdout)
    assert list(rows[0]) == ["prediction"]
    predictions = np.array([float(row["prediction"]) for row in rows])
    assert np.corrcoef(predictions, x)[0, 1] > 0.9
