"""Decompositions of the loss of an average, exact, and disagreement against loops."""

import numpy as np
import pytest

from poise import DataError, diversity

from .test_climb import make_data, plain_loss

SHARES = np.arange(1, 13) / 78


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("shares", [None, SHARES])
def test_the_loss_of_the_average_is_the_mean_loss_less_the_gap(kind, shares):
    predictions, target, weight = make_data(kind)
    found = diversity(predictions, target, weight=weight, member_weights=shares)
    a = np.full(12, 1 / 12) if shares is None else shares
    assert found.loss == pytest.approx(plain_loss(np.tensordot(a, predictions, axes=1), target, weight))
    assert found.mean_loss == pytest.approx(sum(a * [plain_loss(one, target, weight) for one in predictions]))
    assert found.gap == pytest.approx(found.mean_loss - found.loss, rel=1e-10)
    assert found.gap > 0


def test_half_the_mean_squared_difference_of_pairs_is_the_gap_of_values():
    predictions, target, weight = make_data("regression")
    found = diversity(predictions, target, weight=weight, member_weights=SHARES)
    assert SHARES @ found.disagreement @ SHARES / 2 == pytest.approx(found.gap)


@pytest.mark.parametrize("kind", ["multiclass", "regression"])
def test_disagreement_is_that_of_a_loop(kind):
    predictions, target, weight = make_data(kind)
    found = diversity(predictions, target, weight=weight)
    for i, one in enumerate(predictions):
        for j, other in enumerate(predictions):
            apart = (one - other) ** 2 if kind == "regression" else one.argmax(1) != other.argmax(1)
            assert found.disagreement[i, j] == pytest.approx(np.average(apart, weights=weight), abs=1e-14)
    pairs = ~np.eye(12, dtype=bool)
    assert found.mean_disagreement == pytest.approx(found.disagreement[pairs].mean())


def test_mutual_information_of_members_that_are_sure_and_apart():
    sure = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    assert diversity(sure, [0]).mutual_information == pytest.approx(np.log(2))
    unsure = np.full((2, 1, 2), 0.5)
    assert diversity(unsure, [0]).mutual_information == pytest.approx(0, abs=1e-15)
    predictions, target, weight = make_data("multiclass")
    mean = predictions.mean(0)
    entropy = lambda p: -(p * np.log(p)).sum(-1)  # noqa: E731
    expected = np.average(entropy(mean) - entropy(predictions).mean(0), weights=weight)
    assert diversity(predictions, target, weight=weight).mutual_information == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_one_member_and_equal_ones_do_not_differ(kind):
    predictions, target, _ = make_data(kind)
    for members in (predictions[:1], predictions[[0, 0, 0]]):
        found = diversity(members, target)
        assert found.gap == pytest.approx(0, abs=1e-12)
        assert found.gap >= 0
        assert found.mean_disagreement == 0
    assert diversity(predictions, target).mutual_information is None or kind == "binary"


def test_values_far_from_zero_cost_no_digits():
    predictions, target, _ = make_data("regression")
    near, far = diversity(predictions, target), diversity(predictions + 1e6, target + 1e6)
    assert far.gap == pytest.approx(near.gap, rel=1e-8)
    np.testing.assert_allclose(far.disagreement, near.disagreement, rtol=1e-8, atol=1e-12)


def test_rows_of_weight_zero_are_not_there():
    predictions, target, _ = make_data("multiclass")
    weight = np.repeat([1, 0], 25)
    whole, part = diversity(predictions, target, weight=weight), diversity(predictions[:, :25], target[:25])
    assert whole.loss == pytest.approx(part.loss)
    assert whole.mutual_information == pytest.approx(part.mutual_information)
    np.testing.assert_allclose(whole.disagreement, part.disagreement, atol=1e-15)


@pytest.mark.parametrize("shares", [[1.0], [[1.0] * 12], [-1.0] + [1.0] * 11, [0.0] * 12])
def test_weights_of_members_that_do_not_fit_are_refused(shares):
    predictions, target, _ = make_data("binary")
    with pytest.raises(DataError, match="`member_weights`"):
        diversity(predictions, target, member_weights=shares)
