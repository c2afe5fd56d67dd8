import json
from pathlib import Path

import onnxruntime
import pytest

from poise import load, predict_table, read_table


@pytest.fixture
def run(fitted):
    return fitted[0]


def test_a_run_becomes_one_file_that_predicts_the_same(poise, run):
    result = poise("export", run, "model.onnx")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    assert "Written: model.onnx" in result.stdout
    assert [path.name for path in Path().iterdir()] == ["model.onnx"]
    table = read_table(run.parent / "churn.csv")
    feed = {}
    for one in load(run).predictor_.encoder.schema.features:
        cells = table[one.name]
        feed[one.name] = cells.fill_null("").to_numpy() if one.kind == "category" else cells.cast(float).to_numpy()
    labels, probabilities = onnxruntime.InferenceSession("model.onnx").run(None, feed)
    expected = predict_table(load(run), table)
    assert labels.tolist() == expected["prediction"].to_list()
    assert abs(probabilities[:, 1] - expected["probability of yes"].to_numpy()).max() <= 1e-5


def test_json_names_columns_and_outputs(poise, run):
    plain = json.loads(poise("export", run, "model.onnx", "--json").stdout, parse_constant=pytest.fail)
    assert {one["column"] for one in plain["columns"]} >= {"age", "city"}
    assert plain["outputs"] == ["label", "probabilities"]
    assert plain["difference"] <= 1e-5


@pytest.mark.parametrize("name", ["missing/model.onnx", "."])
def test_an_output_that_cannot_be_written_fails_with_its_name(poise, run, name):
    result = poise("export", run, name)
    assert result.exit_code == 1
    assert f"where: {name}" in result.stderr


def test_a_folder_without_a_bundle_is_refused(poise):
    result = poise("export", ".", "model.onnx", "--json")
    assert result.exit_code == 4
    assert json.loads(result.stdout)["error"]["kind"] == "BundleError"
    assert not Path("model.onnx").exists()
