"""The run folder: what is in it, and who may go on in it."""

import json
import tomllib

import polars as pl
import pytest

import poise
from poise import Budget, Network, Recipe, ResumeError

TINY = Recipe(budget=Budget(3, 32), network=Network(width=8, depth=1))
TABLE = pl.DataFrame({"x": range(80), "y": [i % 9 for i in range(80)], "z": ["a", "b"] * 40})


def fit(folder, **changes):
    return poise.fit(TABLE, **{"target": "z", "recipe": TINY, "out": folder, **changes})


def weights(folder):
    return (folder / "bundle" / "weights.safetensors").read_bytes()


def test_what_a_run_leaves(tmp_path):
    result = fit(tmp_path / "run")
    left = {path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    bundle = {f"bundle/{name}" for name in ("manifest.json", "model.json", "weights.safetensors")}
    assert left == {"config.toml", "environment.json", "metrics.jsonl", "result.json"} | bundle
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert poise.from_toml(config["recipes"]["custom"]) == TINY
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(records) == sum(one.epochs for one in result.candidates)
    loaded = poise.load(tmp_path / "run")
    assert loaded.chosen_ == result.chosen.name
    assert loaded.target_name_ == "z"


def test_a_finished_run_is_read_and_not_trained_again(tmp_path):
    first = fit(tmp_path)
    again = fit(tmp_path, resume=True, progress=lambda _: pytest.fail("trained again"))
    assert again == first
    assert not (tmp_path / "checkpoints").exists()


def test_a_damaged_result_is_refused(tmp_path):
    fit(tmp_path)
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(ResumeError, match="cannot be read"):
        fit(tmp_path, resume=True)


def test_a_run_is_never_overwritten_nor_continued_with_other_options(tmp_path):
    fit(tmp_path)
    with pytest.raises(ResumeError, match="holds a run"):
        fit(tmp_path)
    for changes in ({"seed": 1}, {"recipe": "bare"}, {"target": "x"}):
        with pytest.raises(ResumeError, match="other options"):
            fit(tmp_path, resume=True, **changes)


class Cut(Exception):
    pass


@pytest.mark.parametrize("epochs", [1, 30, 203])
def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path, epochs):
    def progress(_, seen=[]):  # noqa: B006 - counts over calls
        seen.append(1)
        if len(seen) >= epochs:
            raise Cut

    fit(tmp_path / "whole")
    with pytest.raises(Cut):
        fit(tmp_path / "cut", progress=progress)
    assert (tmp_path / "cut" / "checkpoints").exists()
    fit(tmp_path / "cut", resume=True)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert not list((tmp_path / "cut").rglob("*.tmp*"))
    assert not (tmp_path / "cut" / "checkpoints").exists()


def test_one_process_at_a_time(tmp_path):
    def progress(_):
        with pytest.raises(ResumeError, match="Another process"):
            fit(tmp_path, resume=True)
        raise Cut

    with pytest.raises(Cut):
        fit(tmp_path, progress=progress)


def test_resume_without_a_folder_is_refused_and_with_an_empty_one_starts(tmp_path):
    with pytest.raises(ResumeError, match="without a run folder"):
        fit(None, resume=True)
    assert fit(tmp_path / "new", resume=True).num_test == 16
