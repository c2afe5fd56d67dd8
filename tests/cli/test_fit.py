import json
import re
from pathlib import Path

import pytest

from poise import from_toml

from ._tables import RECIPE, write_table


def test_a_fit_ends_with_a_table_and_one_sentence_on_stdout(fitted):
    _, result = fitted
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split("  ")[0] == "network"
    for word in ("train accuracy", "test accuracy (95 %)", "gap", "epochs", "seconds"):
        assert word in lines[0]
    assert [line[2:].split()[0] for line in lines[1:4]] == ["bare", "custom", "HistGradientBoosting"]
    assert sum(line.startswith("* ") for line in lines[1:4]) == 1
    assert re.search(r" 0\.\d{4} \[[01]\.\d{4}, [01]\.\d{4}\] +[+-]\d\.\d{4} ", lines[1])
    assert "log loss" in lines[5]
    assert lines[-1].endswith("report.html")


def test_progress_goes_to_stderr_one_line_an_epoch(fitted):
    _, result = fitted
    pattern = r"(bare|custom) \([12] of 2\): epoch \d+ of \d+, validation loss \d+\.\d{4}, \d+\.\d s"
    lines = [line for line in result.stderr.splitlines() if line.startswith(("bare", "custom"))]
    assert all(re.fullmatch(pattern, line) for line in lines)
    assert sum(line.startswith("custom") for line in lines) == 2
    assert "epoch" not in result.stdout.splitlines()[1]


def test_the_run_folder_holds_what_was_asked_and_what_came_out(fitted):
    folder, _ = fitted
    names = {path.name for path in folder.iterdir()}
    assert names == {"bundle", "config.toml", "environment.json", "metrics.jsonl", "report.html", "result.json"}
    assert json.loads((folder / "environment.json").read_text())["seed"] == "5"
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert sum(record["name"] == "custom" for record in records) == 2
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_json_is_one_strict_object(poise, table, recipe):
    result = poise("fit", table, "--target", "churn", "--recipe", recipe, "--time", 1, "--out", "run", "--json")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 1
    plain = json.loads(result.stdout, parse_constant=pytest.fail)
    assert (plain["target"], plain["task"]) == ("churn", "binary")
    assert plain["num_train"] + plain["num_val"] + plain["num_test"] == 80
    candidates = {one["name"]: one for one in plain["candidates"]}
    assert set(candidates) == {"bare", "custom", "HistGradientBoosting"}
    custom = candidates["custom"]
    assert custom["gap"] == custom["test_loss"]["value"] - custom["train_loss"]
    assert from_toml(custom["recipe_toml"]) == from_toml(RECIPE)


def test_without_a_folder_a_run_gets_the_first_free_one(poise, table, recipe):
    for expected in ("run", "run-2"):
        result = poise("fit", table, "--target", "churn", "--recipe", recipe, "--time", 1)
        assert result.exit_code == 0
        assert Path(expected, "report.html").exists()


def test_a_missing_target_lists_the_columns_with_their_kinds(poise, table):
    result = poise("fit", table)
    assert result.exit_code == 2
    assert result.stdout == ""
    for part in ("--target", "age (number)", "city (category)", "churn (category)"):
        assert part in result.stderr
    assert not Path("run").exists()


def test_a_misspelt_target_gets_the_nearest_name(poise, table):
    result = poise("fit", table, "--target", "chrun")
    assert result.exit_code == 2
    assert "no column 'chrun'" in result.stderr
    assert "Did you mean 'churn'?" in result.stderr
    assert not Path("run").exists()


BAD_OPTIONS = [
    (("--recipe", "coktail"), "Did you mean 'cocktail'"),
    (("--recipe", "none.toml"), "none.toml"),
    (("--recipe", "churn.csv"), "not TOML"),
    (("--time", "0"), "--time"),
    (("--time", "nan"), "--time"),
    (("--time", "soon"), "--time"),
    (("--seed", "-1"), "--seed"),
    (("--seed", "1.5"), "--seed"),
    (("--verbose",), "--verbose"),
]


@pytest.mark.parametrize(("words", "message"), BAD_OPTIONS, ids=[" ".join(words) for words, _ in BAD_OPTIONS])
def test_a_bad_option_is_a_usage_error_and_leaves_nothing_behind(poise, table, words, message):
    result = poise("fit", table, "--target", "churn", *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert {path.name for path in Path().iterdir()} == {"churn.csv"}


def test_a_recipe_file_with_a_mistake_names_file_and_place(poise, table):
    Path("mine.toml").write_text('[[methods]]\nkind = "Dropout"\np = 1.5\n')
    result = poise("fit", table, "--target", "churn", "--recipe", "mine.toml")
    assert result.exit_code == 2
    assert "`p` must be a number in [0, 1)" in result.stderr
    assert "mine.toml: methods[0]" in result.stderr


def test_a_recipe_that_contradicts_itself_is_refused_with_the_repair(poise, table):
    Path("mine.toml").write_text('[[methods]]\nkind = "EMA"\n[[methods]]\nkind = "SWA"\n')
    result = poise("fit", table, "--target", "churn", "--recipe", "mine.toml")
    assert result.exit_code == 2
    assert "two averages" in result.stderr
    assert "Keep one of them." in result.stderr


def test_a_recipe_that_is_rarely_wanted_is_noted(poise, table):
    text = '[budget]\nmax_epochs = 2\n[[methods]]\nkind = "BatchNorm"\n[[methods]]\nkind = "MaxNorm"\n'
    Path("mine.toml").write_text(text)
    result = poise("fit", table, "--target", "churn", "--recipe", "mine.toml", "--time", 1)
    assert result.exit_code == 0
    assert "note: B38: MaxNorm on weights that feed a BatchNorm" in result.stderr


@pytest.mark.parametrize(
    "content", ["", "a,churn\n", "a,churn\n1,yes\n2\n", "churn\nyes\nno\n", "a,churn\n1,\n2,yes\n"]
)
def test_data_that_cannot_be_learnt_from_is_bad_data(poise, content):
    Path("bad.csv").write_text(content)
    result = poise("fit", "bad.csv", "--target", "churn", "--json")
    assert result.exit_code == 3
    error = json.loads(result.stdout)["error"]
    assert error["exit_code"] == 3
    assert error["what"]
    assert error["what"] in result.stderr


@pytest.mark.parametrize("name", ["none.csv", "."])
def test_a_file_that_is_none_is_bad_data(poise, name):
    result = poise("fit", name, "--target", "churn")
    assert result.exit_code == 3
    assert result.stderr.startswith("error: ")


def test_a_folder_that_holds_a_run_is_not_overwritten(poise, fitted):
    folder, _ = fitted
    before = (folder / "result.json").read_bytes()
    result = poise("fit", folder.parent / "churn.csv", "--target", "churn", "--out", folder)
    assert result.exit_code == 2
    assert "holds a run" in result.stderr
    assert (folder / "result.json").read_bytes() == before


def test_other_options_do_not_resume_a_run(poise, fitted):
    folder, _ = fitted
    result = poise("fit", folder.parent / "churn.csv", "--target", "churn", "--out", folder, "--resume", "--seed", 6)
    assert result.exit_code == 2
    assert "other options" in result.stderr


def test_a_folder_that_cannot_be_made_fails_with_its_name(poise, table, recipe):
    result = poise("fit", table, "--target", "churn", "--recipe", recipe, "--out", table / "run")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert "churn.csv" in result.stderr


def test_a_large_seed_is_a_seed(poise, table, recipe):
    words = ("--target", "churn", "--recipe", recipe, "--time", 1, "--seed", 2**63, "--out", "run")
    assert poise("fit", table, *words).exit_code == 0


def test_the_same_seed_gives_the_same_scores(poise, tmp_path, recipe):
    data = write_table(tmp_path / "data.csv")
    scores = []
    for out in ("one", "other"):
        words = ("--target", "churn", "--recipe", recipe, "--time", 60, "--out", out, "--json")
        plain = json.loads(poise("fit", data, *words).stdout)
        scores.append(
            [(one["name"], one["train_loss"], one["test_loss"], one["epochs"]) for one in plain["candidates"]]
        )
    assert scores[0] == scores[1]
