"""Sums of networks: what they predict, and what is no sum."""

import pytest
import torch

from poise import Average, Boosted, Boosting, ConfigError, DataError
from poise.data import Encoder

from ._data import FIXED, KINDS, TASKS, make_data

RECIPE = FIXED
BOOSTING = Boosting(num_rounds=3, learning_rate=0.3, max_epochs=3, width=8, depth=1)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_the_rows_change_nothing(kind, monkeypatch):
    data = make_data(kind)
    boosted = BOOSTING.train(data, TASKS[kind], RECIPE).predictor
    whole = boosted.predict(data.table)
    monkeypatch.setattr("poise.train._predictor._CHUNK", 7)
    torch.testing.assert_close(boosted.predict(data.table), whole, rtol=1e-13, atol=1e-13)
    assert boosted.predict(data.table[:0]).shape == (0, *whole.shape[1:])
    assert whole.dtype == torch.float64
    torch.testing.assert_close(Average([boosted, boosted]).predict(data.table), whole)


def test_the_table_is_encoded_once_for_all_rounds(monkeypatch):
    data = make_data()
    boosted = BOOSTING.train(data, TASKS["binary"], RECIPE).predictor
    calls = []
    plain = Encoder.transform
    monkeypatch.setattr(Encoder, "transform", lambda self, *args, **kw: calls.append(1) or plain(self, *args, **kw))
    boosted.predict(data.table)
    assert len(calls) == 1


def test_a_sum_of_nothing_is_refused():
    stages = BOOSTING.train(make_data(), TASKS["binary"], RECIPE).predictor.stages
    with pytest.raises(ConfigError, match="0 rounds"):
        Boosted(TASKS["binary"], [0.0], [])
    with pytest.raises(ConfigError, match="3 network"):
        Boosted(TASKS["multiclass"], [0.0] * 3, stages)
    with pytest.raises(DataError):
        Boosted(TASKS["binary"], [0.0], stages).predict(make_data().table.drop("a"))
