import json
import re
from pathlib import Path

import pytest

RECIPE = """
[optimizer]
lr = { kind = "Constant", start = 1e-3 }
[budget]
max_epochs = 2
batch_size = 32
[network]
width = 8
depth = 1
[[methods]]
kind = "Dropout"
[[methods]]
kind = "EMA"
"""


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def ablate(poise, table, small):
    return lambda *words: poise("ablate", table, "--target", "churn", "--recipe", small, "--blocks", 5, *words)


def test_it_ends_with_two_tables_and_a_verdict(ablate):
    result = ablate("--out", "run", "--seed", 3)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert re.split(" {2,}", lines[0]) == ["ingredient", "effect on test log loss", "blocks", "verdict"]
    assert [line.split("  ")[0] for line in lines[1:4]] == ["whole recipe", "Dropout", "EMA"]
    assert re.search(r"[+-]\d\.\d{4} \[[+-]\d\.\d{4}, [+-]\d\.\d{4}\] +5 +\w", lines[2])
    assert "effect on gap" in lines[5]
    assert lines[-1] == "Report: run/report.html"
    assert sorted(path.name for path in Path("run").iterdir()) == ["config.toml", "report.html", "result.json"]
    assert "EMA" in Path("run/report.html").read_text(encoding="utf-8")


def test_progress_goes_to_stderr(ablate):
    lines = [line for line in ablate().stderr.splitlines() if line.startswith("blocks")]
    assert all(re.fullmatch(r"blocks 1 to 5: \d+ of 20 trainings, \d+\.\d s", line) for line in lines)
    assert "20 of 20" in lines[-1]


def test_json_is_one_strict_object(ablate):
    result = ablate("--json", "--design", "pairs")
    assert len(result.stdout.splitlines()) == 1
    plain = json.loads(result.stdout, parse_constant=pytest.fail)
    assert [one["name"] for one in plain["effects"]] == ["whole recipe", "Dropout", "EMA", "Dropout × EMA"]
    assert "runs" not in plain
    assert len(json.loads(Path("ablation/result.json").read_text())["runs"]) == 20


def test_without_a_folder_a_run_gets_the_first_free_one_and_resumes_the_last(ablate):
    for expected in ("ablation", "ablation-2"):
        assert ablate().exit_code == 0
        assert Path(expected, "result.json").exists()
    before = Path("ablation-2/result.json").read_bytes()
    resumed = ablate("--resume")
    assert resumed.exit_code == 0
    assert Path("ablation-2/result.json").read_bytes() == before
    assert not Path("ablation-3").exists()


def test_an_interruption_says_how_to_go_on(ablate, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("poise.ablate", interrupted, raising=False)
    result = ablate("--out", "run", "--time", 60, "--design", "pairs", "--margin", 0.02, "--json")
    assert result.exit_code == 130
    said = json.loads(result.stdout)["error"]["repair"]
    assert re.search(r"Continue with: poise ablate \S*churn.csv --target churn --out run --recipe \S*small.toml ", said)
    assert said.endswith("--design pairs --margin 0.02 --blocks 5 --time 60 --seed 0 --resume --json")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--design", "all"), 2, "`design` must be one of"),
        (("--margin", 0), 2, "`margin` must be"),
        (("--blocks", 1), 2, "Invalid value for '--blocks'"),
        (("--recipe", "bare"), 2, "no ingredient"),
        (("--recipe", "missing.toml"), 2, "cannot be read"),
        (("--target", "chrun"), 2, "churn"),
        (("--time", 0.01), 2, "too short"),
    ],
)
def test_bad_options_are_refused(ablate, words, code, said):
    result = ablate(*words)
    assert result.exit_code == code
    assert said in result.stderr


def test_a_missing_target_lists_the_columns(poise, table):
    result = poise("ablate", table)
    assert result.exit_code == 2
    assert "churn (category)" in result.stderr
