"""Cross-validation ensembles: each row is left out once a repeat, and by whom is known."""

import numpy as np
import pytest

from poise import ConfigError, DataError, FoldEnsemble

from ._data import FIXED, KINDS, STOPPING, TASKS, make_data, seen_by


@pytest.mark.parametrize("kind", KINDS)
def test_out_of_fold_predictions_are_of_members_that_never_saw_the_row(kind):
    data = make_data(kind)
    ensemble = FoldEnsemble(num_folds=3, num_repeats=2).train(data, TASKS[kind], STOPPING)
    judged, said = ensemble.held_out, ensemble.predictor.member_predictions(data.table).numpy()
    assert (judged.num_members == 2).all()
    for row in range(80):
        unaware = [index for index, member in enumerate(ensemble.members) if row not in seen_by(member)]
        np.testing.assert_allclose(judged.predictions[row], said[unaware, row].mean(0), rtol=1e-10, atol=1e-12)
    assert judged.is_untouched
    assert ensemble.notes == ()


def test_validation_on_the_fold_is_said_to_be_no_untouched_one():
    data = make_data()
    ensemble = FoldEnsemble(num_folds=4, validate="fold").train(data, TASKS["binary"], STOPPING)
    assert not ensemble.held_out.is_untouched
    for member in ensemble.members:
        assert len(member.plan.train_rows) == 60
        assert not set(member.plan.train_rows) & set(member.plan.val_rows)
    assert FoldEnsemble(num_folds=4, validate="fold").train(data, TASKS["binary"], FIXED).held_out.is_untouched


def test_without_early_stopping_all_other_rows_train():
    for member in FoldEnsemble(num_folds=4).train(make_data(), TASKS["binary"], FIXED).members:
        assert len(member.plan.train_rows) == 60


def test_folds_hold_every_class_and_single_rows_always_train():
    data = make_data("multiclass")
    data.target[:] = np.where(np.arange(80) == 7, 2, np.arange(80) % 2)
    ensemble = FoldEnsemble(num_folds=5).train(data, TASKS["multiclass"], STOPPING)
    assert all(7 in member.plan.train_rows for member in ensemble.members)
    assert ensemble.held_out.num_members[7] == 0
    assert ensemble.notes == ("1 of 80 rows have no out-of-fold prediction.",)


def test_fewer_rows_than_folds_are_refused():
    with pytest.raises(DataError, match="cannot fill 5 folds"):
        FoldEnsemble(num_folds=5).train(make_data("regression", num_rows=4), TASKS["regression"], FIXED)


@pytest.mark.parametrize(
    ("settings", "name"),
    [({"num_folds": 1}, "num_folds"), ({"num_repeats": 0}, "num_repeats"), ({"validate": "test"}, "validate")],
)
def test_settings_are_checked(settings, name):
    with pytest.raises(ConfigError, match=f"`{name}`"):
        FoldEnsemble(**settings)
