"""The whole experiment: what it finds, what it refuses, how it goes on."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from poise import Budget, ConfigError, DataError, Network, Recipe, ResumeError, known
from poise.methods import Dropout, EarlyStopping, GaussianNoise, MaxNorm
from poise.tuning import ablate
from poise.tuning._ablate import _Stages

from ._ablations import TINY, make_table

TABLE = make_table().drop("y")


def run(data=TABLE, **changes):
    return ablate(data, **{"target": "label", "recipe": TINY, "max_blocks": 5, **changes})


def timeless(result):
    """What does not depend on the clock."""
    effects = [replace(one, seconds=None) for one in result.effects]
    runs = [replace(one, seconds=0.0, reached_seconds=None) for one in result.runs]
    return effects, runs, result.num_blocks, result.ended, result.verdict


def test_what_hurts_and_what_does_nothing_are_told():
    recipe = Recipe(
        (GaussianNoise(std=3.0), MaxNorm(max_norm=1e6)),
        known("bare").optimizer,
        Budget(max_epochs=20, batch_size=16),
        Network(width=8, depth=1),
    )
    result = run(make_table(300).drop("label"), target="y", recipe=recipe, max_blocks=15, margin=0.02)
    assert result.effect("GaussianNoise").verdict == "hurts"
    assert result.effect("MaxNorm").verdict == "no effect"
    assert result.effect("MaxNorm").loss.value == 0
    assert result.effect("whole recipe").verdict == "hurts"
    assert result.ended == "decided"
    assert result.num_blocks < 15
    assert result.verdict.startswith("Nothing helped: GaussianNoise (+")
    assert result.margin == 0.02


def test_arms_of_what_is_decided_are_trained_no_more():
    recipe = Recipe(
        (Dropout(p=0.1), MaxNorm(max_norm=1e6)), known("bare").optimizer, Budget(3, 16), Network(width=8, depth=1)
    )
    result = run(recipe=recipe, max_blocks=10, margin=1e-9)
    trained = {arm.name: arm.num_blocks for arm in result.arms}
    assert trained == {"all": 10, "none": 10, "without Dropout": 10, "without MaxNorm": 5}
    assert result.ended == "blocks"


def test_pairs_have_interactions():
    result = run(design="pairs")
    assert [one.name for one in result.effects] == ["whole recipe", "Dropout", "WeightDecay", "Dropout × WeightDecay"]
    assert result.effect("Dropout × WeightDecay").kind == "pair"
    assert [arm.name for arm in result.arms] == ["all", "none", "without Dropout", "without WeightDecay"]


def test_the_seed_names_the_result():
    assert timeless(run(seed=4)) == timeless(run(seed=4))
    assert timeless(run(seed=4)) != timeless(run(seed=5))


def test_the_order_of_the_rows_does_not_matter():
    shuffled = TABLE[np.random.default_rng(0).permutation(TABLE.height)]
    assert timeless(run(shuffled)) == timeless(run())


def test_copies_of_a_row_are_never_on_two_sides():
    result = run(pl.concat([TABLE, TABLE]))
    assert result.num_rows == TABLE.height


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"design": "all"}, ConfigError, "`design` must be one of 'leave-one-out'"),
        ({"margin": 0}, ConfigError, "`margin`"),
        ({"max_blocks": 1}, ConfigError, "`max_blocks`"),
        ({"time_limit": 0}, ConfigError, "`time_limit`"),
        ({"time_limit": 1e-9}, ConfigError, "`time_limit` is too short"),
        ({"seed": -1}, ConfigError, "`seed`"),
        ({"recipe": "cocktial"}, ConfigError, "cocktail"),
        ({"recipe": None}, ConfigError, "`recipe` must be a Recipe or a name"),
        ({"recipe": "bare"}, ConfigError, "no ingredient"),
        ({"target": "lable"}, ConfigError, "label"),
        ({"data": TABLE[:8]}, DataError, "too few for an ablation"),
        ({"data": TABLE.with_columns(label=pl.lit("yes"))}, DataError, "Only one value"),
        ({"data": TABLE.with_columns(label=pl.lit(1.5))}, DataError, "Only one value"),
        ({"data": TABLE.select("label")}, DataError, "."),
        ({"resume": True}, ResumeError, "without a run folder"),
    ],
)
def test_bad_input_is_refused(changes, error, said):
    with pytest.raises(error, match=said):
        run(**changes)


def test_a_class_that_is_missing_from_parts_is_said():
    labels = pl.Series("label", ["rare"] * 2 + ["yes", "no"] * 59)
    result = run(TABLE.with_columns(labels))
    assert any("1 class(es) have fewer than 5" in warning for warning in result.warnings)


def test_a_time_limit_cuts_trainings_or_stages_and_says_so():
    long = replace(TINY, budget=Budget(max_epochs=100_000, batch_size=16))
    result = run(recipe=long, max_blocks=50, time_limit=2.0)
    assert any("cut every training" in warning for warning in result.warnings)
    assert result.ended in ("time", "decided")  # even short trainings may decide before the time is over
    assert result.num_blocks < 50
    assert {one.max_epochs for one in result.runs} == {result.runs[0].max_epochs}


def test_progress_says_what_every_stage_decides():
    seen = []
    recipe = replace(TINY, methods=(MaxNorm(max_norm=1e6), *TINY.methods))
    run(recipe=recipe, max_blocks=10, margin=1e-9, progress=seen.append)
    notes = [one.note for one in seen if one.note.startswith("after")]
    assert notes[0].startswith("after 5 blocks 1 of 3 effects are decided (MaxNorm: no effect")
    assert len(notes) == 2


# The run folder


def test_a_run_leaves_its_result_and_is_read_again(tmp_path):
    first = run(out=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.toml", "result.json"]
    again = run(out=tmp_path, resume=True, progress=lambda _: pytest.fail("trained again"))
    assert again == first
    with pytest.raises(ResumeError, match="holds a run"):
        run(out=tmp_path)
    with pytest.raises(ResumeError, match="other options"):
        run(out=tmp_path, resume=True, margin=0.5)
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(ResumeError, match="cannot be read"):
        run(out=tmp_path, resume=True)


class Cut(Exception):
    pass


@pytest.mark.parametrize("ended", [1, 13, 21, 29])
def test_an_interrupted_run_comes_to_the_same_result(tmp_path, ended):
    left = iter(range(ended))

    def progress(now):
        if not now.note and next(left, None) is None:
            raise Cut

    options = {"max_blocks": 10, "margin": 1e-9, "recipe": replace(TINY, methods=(*TINY.methods, EarlyStopping(1)))}
    with pytest.raises(Cut):
        run(out=tmp_path / "cut", progress=progress, **options)
    resumed = run(out=tmp_path / "cut", resume=True, **options)
    assert timeless(resumed) == timeless(run(**options))


def test_a_finished_stage_is_not_trained_again(tmp_path, monkeypatch):
    trained = []
    train = _Stages._train

    def counting(self, arms, count):
        trained.append(count)
        return train(self, arms, count)

    monkeypatch.setattr(_Stages, "_train", counting)

    def progress(now):
        if now.first_block == 5:
            raise Cut

    with pytest.raises(Cut):
        run(out=tmp_path, max_blocks=10, margin=1e-9, progress=progress)
    stage = json.loads((tmp_path / "checkpoints" / "blocks-5.json").read_bytes())
    assert len(stage["runs"]) == 4 * 5
    run(out=tmp_path, max_blocks=10, margin=1e-9, resume=True)
    assert trained == [5, 10, 10]
