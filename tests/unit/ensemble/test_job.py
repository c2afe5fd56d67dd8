"""Jobs: what is split how, which data are refused, and what is left of trainings that fail."""

import numpy as np
import pytest

from poise import DataError, DeepEnsemble
from poise._random import Key
from poise.ensemble._job import Job, members_of
from poise.fleet import Fleet

from ._data import FIXED, TASKS, make_data


def test_splits_hold_every_class_in_its_share():
    data = make_data("multiclass", num_rows=200)
    data.weight[::7] = 0
    job = Job(data, TASKS["multiclass"], FIXED, val_fraction=0.25)
    train, val = job.split(job.rows, Key(0))
    assert sorted([*train, *val]) == job.rows.tolist()
    for code in range(3):
        whole = (data.target[job.rows] == code).sum()
        assert abs((data.target[val] == code).sum() - whole / 4) <= 1


def test_the_variance_of_a_target_is_weighted():
    data = make_data("regression")
    data.weight[:] = np.random.default_rng(0).integers(0, 3, 80)
    copies = np.repeat(data.target, data.weight.astype(int))
    assert Job(data, TASKS["regression"], FIXED).target_variance == pytest.approx(copies.var())
    data.target[:] = 2.0
    assert Job(data, TASKS["regression"], FIXED).target_variance == 1.0


def test_members_that_do_not_stay_finite_are_left_out_and_said():
    data = make_data()
    strange = DeepEnsemble(num_members=2)
    plans = strange.train(data, TASKS["binary"], FIXED).members
    states = Fleet([one.plan for one in plans], data).run()
    states[0].best_epoch, states[0].stopped = 0, "non-finite"
    kept, notes = members_of([one.plan for one in plans], states)
    assert [one.plan.name for one in kept] == ["member-1"]
    assert notes == ["1 of 2 members did not stay finite and are left out: member-0."]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.target.__setitem__(3, 2.0), r"class code in 0 … 1, but is .*2\.0.*row 4"),
        (lambda data: data.target.__setitem__(3, 0.5), "row 4"),
        (lambda data: data.target.__setitem__(3, np.nan), "row 4"),
        (lambda data: data.weight.__setitem__(slice(1, None), 0.0), "1 rows have a weight above zero"),
    ],
)
def test_data_that_cannot_be_learnt_from_are_refused(change, said):
    data = make_data()
    change(data)
    with pytest.raises(DataError, match=said):
        DeepEnsemble().train(data, TASKS["binary"], FIXED)
