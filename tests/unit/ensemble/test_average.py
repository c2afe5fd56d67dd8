"""Averages: exact, whatever the members, and encoded once where encoders agree."""

import numpy as np
import pytest
import torch

from poise import Average, ConfigError, DataError
from poise.data import Encoder, infer_schema
from poise.train import Dataset

from ._data import make_data, predictors


@pytest.fixture(params=["binary", "multiclass", "regression"])
def trained(request):
    data = make_data(request.param)
    # Members 0 and 2 share an encoder.
    return data, predictors(data, request.param, [np.arange(40), np.arange(5, 40), np.arange(40)])


def test_it_is_the_weighted_mean_of_what_each_member_says(trained):
    data, members = trained
    alone = torch.stack([member.predict(data.table) for member in members])
    average = Average(members, [0.5, 0.2, 0.3])
    torch.testing.assert_close(average.member_predictions(data.table), alone, rtol=0, atol=0)
    expected = 0.5 * alone[0] + 0.2 * alone[1] + 0.3 * alone[2]
    torch.testing.assert_close(average.predict(data.table), expected, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(Average(members).predict(data.table), alone.mean(0), rtol=1e-14, atol=1e-14)
    assert average.predict(data.table).dtype == torch.float64
    assert average.task == members[0].task
    assert average.encoder is members[0].encoder


def test_parts_of_the_rows_change_nothing(trained, monkeypatch):
    data, members = trained
    average = Average(members)
    whole, each = average.predict(data.table), average.member_predictions(data.table)
    monkeypatch.setattr("poise.train._predictor._CHUNK", 7)
    torch.testing.assert_close(average.predict(data.table), whole, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(average.member_predictions(data.table), each, rtol=1e-14, atol=1e-14)
    assert average.predict(data.table[:0]).shape == (0, *whole.shape[1:])


def test_a_table_is_encoded_once_for_members_with_equal_encoders(trained, monkeypatch):
    data, members = trained
    calls = []
    plain = Encoder.transform
    monkeypatch.setattr(Encoder, "transform", lambda self, *args, **kw: calls.append(self) or plain(self, *args, **kw))
    Average(members).predict(data.table)
    assert len(calls) == 2
    calls.clear()
    Average(members, [0, 1, 0]).predict(data.table)
    assert calls == [members[1].encoder]


def test_averages_are_members_too(trained):
    data, members = trained
    nested = Average([Average(members[:2]), members[2]], [2 / 3, 1 / 3])
    torch.testing.assert_close(nested.predict(data.table), Average(members).predict(data.table))


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([1.0], "one number a member"),
        ([0.5, 0.6], "sum to 1"),
        ([1.5, -0.5], r"weights\[0\]"),
        ([float("nan"), 1.0], r"weights\[0\]"),
        ([0.0, 0.0], "sum to 1"),
    ],
)
def test_weights_that_are_none_are_refused(weights, said):
    data = make_data("binary")
    members = predictors(data, "binary", [np.arange(40), np.arange(40)])
    with pytest.raises(ConfigError, match=said):
        Average(members, weights)


def test_members_that_do_not_go_together_are_refused():
    data = make_data("binary")
    one = predictors(data, "binary", [np.arange(40)])[0]
    number = predictors(make_data("regression"), "regression", [np.arange(40)])[0]
    with pytest.raises(ConfigError, match="member 1 predicts"):
        Average([one, number])
    narrow = Dataset(data.table.drop("c"), infer_schema(data.table.drop("c")), data.target, data.weight)
    with pytest.raises(ConfigError, match="same columns"):
        Average([one, predictors(narrow, "binary", [np.arange(40)])[0]])
    with pytest.raises(ConfigError, match="is empty"):
        Average([])
    with pytest.raises(DataError):
        Average([one, one]).predict(data.table.drop("a"))
