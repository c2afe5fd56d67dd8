"""Greedy growth: the fast steps against averages that are made and scored in full."""

import numpy as np
import pytest

from poise.ensemble._climb import climb
from poise.ensemble._pool import make_pool


def softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def make_data(kind, seed=0, num_members=12, num_rows=50):
    rng = np.random.default_rng(seed)
    weight = rng.uniform(0.1, 2, num_rows)
    if kind == "regression":
        return rng.normal(size=(num_members, num_rows)) + 0.5, rng.normal(size=num_rows), weight
    num_classes = 2 if kind == "binary" else 5
    logits = 2 * rng.normal(size=(num_members, num_rows, num_classes))
    return softmax(logits), rng.integers(0, num_classes, num_rows), weight


def plain_loss(average, target, weight):
    """Of an average prediction (N, C) or (N,)."""
    rows = (average - target) ** 2 if average.ndim == 1 else -np.log(average[np.arange(len(target)), target])
    return float((weight * rows).sum() / weight.sum())


def plain_step(predictions, target, weight, picks):
    """The member whose addition to those picked gives the lowest loss, and that loss."""
    losses = [
        plain_loss(np.mean([predictions[one] for one in [*picks, member]], axis=0), target, weight)
        for member in range(len(predictions))
    ]
    return int(np.argmin(losses)), min(losses)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("seed", range(3))
def test_each_step_is_the_best_of_all(kind, seed):
    predictions, target, weight = make_data(kind, seed)
    growing = climb(make_pool(predictions, target, weight))
    growing.add(seed)
    picks = [seed]
    for _ in range(15):
        expected, _ = plain_step(predictions, target, weight, picks)
        assert growing.best() == expected
        growing.add(expected)
        picks.append(expected)
    np.testing.assert_array_equal(growing.counts, np.bincount(picks, minlength=len(predictions)))
    assert growing.size == 16


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_fractions_count_as_such(kind):
    predictions, target, weight = make_data(kind)
    growing, doubled = (climb(make_pool(predictions, target, weight)) for _ in range(2))
    growing.add(0, 2.0)
    growing.add(3, 1.0)
    for member in (0, 3, 0):
        doubled.add(member)
    assert growing.best() == doubled.best()
    halved = climb(make_pool(predictions, target, weight))
    halved.add(0, 1e-12)
    singles = [plain_loss(one, target, weight) for one in predictions]
    assert halved.best() == int(np.argmin(singles))


def test_a_member_that_is_sure_of_the_wrong_class_has_a_finite_loss():
    predictions = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]])
    pool = make_pool(predictions, [1, 1], None)
    np.testing.assert_allclose(pool.losses(), [-np.log(1e-15) / 2, np.log(2)])
    growing = climb(pool)
    growing.add(0)
    assert growing.best() == 1


@pytest.mark.parametrize("sharpness", [0.1, 2.0, 20.0])
def test_no_member_is_better_than_its_bound(sharpness):
    rng = np.random.default_rng(0)
    for size in (0.5, 1, 2, 7, 40):
        p = softmax(sharpness * rng.normal(size=(200, 9, 3)))
        growing = climb(make_pool(p, rng.integers(0, 3, 9), rng.uniform(0.1, 1, 9)))
        growing.add(0, size / 2)
        growing.add(1, size / 2)
        losses = growing._losses(np.arange(200))
        assert (growing._bounds() <= losses + 1e-12 * (1 + losses)).all()
