import numpy as np
import polars as pl
import pytest

from poise.data import infer_schema
from poise.train import Dataset, Multiclass, Regression
from poise.tuning._ablation_design import Design
from poise.tuning._ablation_result import Arm
from poise.tuning._ablation_words import remarks, verdict

from ._ablations import make_effect, make_result

HELPS, HURTS = make_effect("Dropout", "helps", -0.04), make_effect("L2", "hurts", 0.03)
IDLE, OPEN = make_effect("EMA", "no effect"), make_effect("Mixup", "cannot tell")


@pytest.mark.parametrize(
    ("effects", "said"),
    [
        ([HELPS], "Dropout (-0.0400) lowers the test log loss."),
        ([HELPS, make_effect("L1", "helps", -0.01)], "Dropout (-0.0400) and L1 (-0.0100) lower the test log loss."),
        (
            [HELPS, HURTS, IDLE, OPEN],
            "Dropout (-0.0400) lowers the test log loss; L2 (+0.0300) raises it; EMA has no effect beyond ±0.01; for "
            "Mixup 10 blocks cannot tell.",
        ),
        ([HURTS, IDLE], "Nothing helped: L2 (+0.0300) raises the test log loss; EMA has no effect beyond ±0.01."),
        ([IDLE, OPEN], "Nothing helped: EMA has no effect beyond ±0.01; for Mixup 10 blocks cannot tell."),
        ([OPEN], "Cannot tell: after 10 blocks no interval excludes zero or lies within ±0.01 (Mixup)."),
    ],
)
def test_every_outcome_has_its_words(effects, said):
    assert verdict(effects, 0.01, "log loss", 10) == said


def test_the_whole_recipe_is_told_apart():
    said = verdict(make_result().effects, 0.01, "log loss", 10)
    assert said.endswith("The whole recipe against the bare network: -0.0500 [-0.0600, -0.0400] in log loss.")
    assert "×" not in said


def test_remarks_name_what_is_missing():
    table = pl.DataFrame({"x": range(12)})
    data = Dataset(table, infer_schema(table), np.array([0.0] * 6 + [1.0] * 4 + [2.0] * 2), np.ones(12))
    arms = (Arm("all", 5, 0, 1.0, 1.0, 1.0, ""), Arm("none", 5, 2, 1.0, 1.0, 1.0, ""))
    notes = remarks(Design({}, (), ("L1 is not compared: so.",)), arms, data, Multiclass(3), cut=3)
    assert [note.split(" ")[0] for note in notes] == ["L1", "2", "The", "2"]
    assert "'none'" in notes[1]
    assert "3 epochs" in notes[2]
    assert remarks(Design({}, ()), arms[:1], data, Regression(), cut=None) == ()
