"""scikit-learn's own checks, all of them, with no expected failures."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from poise import PoiseClassifier, PoiseRegressor

ESTIMATORS = [
    PoiseClassifier(),
    PoiseRegressor(),
    PoiseClassifier(recipe="cocktail"),
    PoiseRegressor(recipe="cocktail"),
]


@pytest.mark.slow
@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn(estimator, check):
    check(estimator)
