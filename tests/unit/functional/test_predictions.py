"""Checked arrays of predictions, and the losses of rows."""

import numpy as np
import pytest
import torch

from poise import DataError
from poise.functional.predictions import as_codes, as_numbers, as_probabilities, as_weights, log_loss, of_target


@pytest.mark.parametrize(
    "values",
    [[[0.25, 0.75]], np.array([[0.25, 0.75]], np.float32), torch.tensor([[0.25, 0.75]]), [[0.0, 1.0]],
     torch.softmax(torch.linspace(-3, 3, 26, dtype=torch.float16), 0)[None]],
)  # fmt: skip
def test_probabilities_of_every_kind_become_float64_of_sum_one(values):
    p = as_probabilities("p", values)
    assert p.dtype == np.float64
    np.testing.assert_allclose(p.sum(-1), 1, rtol=0, atol=1e-15)
    np.testing.assert_allclose(p, np.asarray(values, np.float64), rtol=2e-3)


def test_the_caller_keeps_what_was_given():
    values = np.array([[0.2, 0.8004]])
    as_probabilities("p", values)
    np.testing.assert_array_equal(values, [[0.2, 0.8004]])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[0.5, 0.6]], "sum is off by 0.1"),
        ([[1.2, -0.2]], "one is -0.2"),
        ([[np.nan, 0.5]], "NaN"),
        ([[np.inf, 0.5]], "infinity"),
        ([0.5, 0.5], r"must have 2 axes and no empty one, but has shape \(2,\)"),
        (np.empty((0, 2)), "no empty one"),
        ([[0.5]], "a column for each class"),
        ([["a", "b"]], "real numbers"),
        (torch.tensor([[0.5, 0.5]], requires_grad=True), "array of numbers"),
    ],
)
def test_what_is_no_probability_is_refused(values, message):
    with pytest.raises(DataError, match=message) as caught:
        as_probabilities("p", values)
    assert caught.value.where == "argument `p`"


@pytest.mark.parametrize("values", [[0, 1, 2], np.array([0, 1, 2], np.uint8), [0.0, 1.0, 2.0], torch.tensor([0, 1, 2])])
def test_codes_of_every_kind_become_indices(values):
    np.testing.assert_array_equal(as_codes("y", values, 3, 3), [0, 1, 2])
    assert as_codes("y", values, 3, 3).dtype == np.intp


@pytest.mark.parametrize("values", [[0, 1], [0, 1, 3], [-1, 0, 1], [0, 0.5, 1], [0, 1, np.nan], [0, 1, 1e300]])
def test_codes_out_of_range_are_refused(values):
    with pytest.raises(DataError, match="`y`"), np.errstate(invalid="ignore"):
        as_codes("y", values, 3, 3)


def test_weights_sum_to_one_whatever_their_size():
    np.testing.assert_allclose(as_weights("w", None, 4), [0.25] * 4)
    np.testing.assert_allclose(as_weights("w", [1, 3], 2), [0.25, 0.75])
    np.testing.assert_allclose(as_weights("w", [1e308, 1e308], 2), [0.5, 0.5])
    np.testing.assert_allclose(as_weights("w", [1e-308, 3e-308], 2), [0.25, 0.75])


@pytest.mark.parametrize("values", [[1, -1], [0, 0], [1], [1, np.nan]])
def test_weights_that_are_none_are_refused(values):
    with pytest.raises(DataError, match="`w`"):
        as_weights("w", values, 2)


def test_numbers_may_be_booleans_and_integers():
    np.testing.assert_array_equal(as_numbers("x", [True, False], 1), [1, 0])
    assert as_numbers("x", [1, 2], (1, 2)).dtype == np.float64


def test_the_probability_of_the_true_class_and_its_loss():
    p = np.array([[[0.2, 0.8], [0.6, 0.4]], [[0.1, 0.9], [1.0, 0.0]]])
    picked = of_target(p, np.array([1, 0]))
    np.testing.assert_array_equal(picked, [[0.8, 0.6], [0.9, 1.0]])
    np.testing.assert_allclose(log_loss(np.array([1.0, 0.5, 0.0])), [0, np.log(2), 34.538776], rtol=1e-7)
