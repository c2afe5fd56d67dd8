"""Members: encoded once where encoders agree."""

import numpy as np
import torch

from poise.data import Encoder
from poise.ensemble import Average
from poise.ensemble._members import Members, encoder_digest

from ._data import make_data, predictors


def test_the_digest_tells_encoders_apart():
    data = make_data()
    one, same, other = (Encoder.fit(data.table, data.schema, np.arange(stop)) for stop in (40, 40, 41))
    binned = Encoder.fit(data.table, data.schema, np.arange(40), num_bins=4)
    assert encoder_digest(one) == encoder_digest(same)
    assert len({encoder_digest(each) for each in (one, other, binned)}) == 3


def test_those_with_equal_encoders_follow_each_other():
    data = make_data()
    networks = predictors(data, "binary", [np.arange(40), np.arange(39), np.arange(40), np.arange(39)])
    members = Members(networks)
    assert [index for index, _ in members.predictions(data.table)] == [0, 2, 1, 3]
    assert [index for index, _ in members.predictions(data.table, of=[3, 2])] == [2, 3]
    for index, said in members.predictions(data.table):
        assert torch.equal(said, networks[index].predict(data.table))


def test_ensembles_are_asked_as_they_are():
    data = make_data()
    one, two = predictors(data, "binary", [np.arange(40), np.arange(40)])
    inner = Average([one, two])
    said = dict(Members([inner, one]).predictions(data.table))
    assert torch.equal(said[0], inner.predict(data.table))
    assert torch.equal(said[1], one.predict(data.table))
