"""Folds that train side by side give what scikit-learn's loop gives."""

import numpy as np
import pytest
import torch
from sklearn.model_selection import GroupKFold
from sklearn.model_selection import cross_validate as sequential

from poise import ConfigError, PoiseClassifier, PoiseRegressor, cross_validate
from poise.recipe import Budget, Network, Recipe

RECIPE = Recipe(budget=Budget(max_epochs=3, batch_size=32), network=Network(width=8, depth=1))
rng = np.random.default_rng(0)
X = rng.normal(size=(120, 4))
Y = {"classes": (X[:, 0] > 0).astype(int), "values": X[:, 0] + 0.1 * rng.normal(size=120)}


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("kind", "estimator"), [("classes", PoiseClassifier), ("values", PoiseRegressor)])
def test_equals_the_loop_of_scikit_learn(kind, estimator):
    model = estimator(recipe=RECIPE, random_state=0)
    ours = cross_validate(model, X, Y[kind], cv=4, return_estimator=True)
    theirs = sequential(model, X, Y[kind], cv=4)
    assert np.array_equal(ours["test_score"], theirs["test_score"])
    assert len(ours["estimator"]) == len(ours["fit_time"]) == len(ours["score_time"]) == 4
    assert not hasattr(model, "predictor_")


def test_groups_and_scoring_are_those_of_scikit_learn():
    model, groups = PoiseClassifier(recipe=RECIPE, random_state=0), np.arange(120) // 10
    settings = {"cv": GroupKFold(3), "groups": groups, "scoring": "neg_log_loss"}
    ours, theirs = cross_validate(model, X, Y["classes"], **settings), sequential(model, X, Y["classes"], **settings)
    assert np.array_equal(ours["test_score"], theirs["test_score"])


def test_an_error_of_one_fold_is_told():
    with pytest.raises(ConfigError, match="val_fraction"):
        cross_validate(PoiseClassifier(val_fraction=2.0), X, Y["classes"], cv=3)
