"""Greedy selection: against a plain path, honest about what it is worth, and warm."""

import numpy as np
import pytest

from poise import ConfigError, DataError
from poise._random import Key
from poise.ensemble import _paths, greedy_weights

from .test_climb import make_data, plain_loss, plain_step


def normal_members(seed, num_rows=200, stds=(1.0, 1.0, 1.0, 4.0)):
    """Values with errors of their own around the target."""
    rng = np.random.default_rng(seed)
    target = rng.normal(size=num_rows)
    return target + np.array(stds)[:, None] * rng.normal(size=(len(stds), num_rows)), target


def average_loss(predictions, target, weights):
    return plain_loss(np.tensordot(weights, predictions, axes=1), target, np.ones(len(target)))


def plain_path(predictions, target, weight, num_steps):
    """Without bags: the best prefix of the five best members, then one greedy step after the other."""
    singles = [plain_loss(one, target, weight) for one in predictions]
    order = list(np.argsort(singles)[:5])
    prefixes = [plain_loss(predictions[order[:size]].mean(0), target, weight) for size in range(1, 6)]
    picks = order[: int(np.argmin(prefixes)) + 1]
    while len(picks) < num_steps:
        picks.append(plain_step(predictions, target, weight, picks)[0])
    return picks


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_one_bag_is_the_plain_path(kind):
    predictions, target, weight = make_data(kind)
    found = greedy_weights(predictions, target, weight=weight, task_kind=kind, num_steps=15, num_bags=1)
    best = int((found.losses <= found.losses.min() * (1 + 1e-9)).argmax()) + 1
    picks = plain_path(predictions, target, weight, 15)
    np.testing.assert_array_equal(found.counts[-1, 0], np.bincount(picks[:best], minlength=len(predictions)))
    used = found.counts[-1, 0] / best if found.num_steps else found.weights
    np.testing.assert_allclose(found.weights, used)
    expected = plain_loss(np.tensordot(found.weights, predictions, axes=1), target, weight)
    assert found.naive_loss == pytest.approx(expected, rel=1e-12)


def test_held_out_losses_are_those_of_paths_without_the_rows():
    predictions, target, weight = make_data("multiclass", num_rows=30)
    found = greedy_weights(predictions, target, weight=weight, num_steps=8, num_bags=1, num_folds=3)
    folds = (Key(0).stream("folds").permutation(30) % 3).numpy()
    along = np.zeros((8, 3))
    for fold in range(3):
        seen, out = folds != fold, folds == fold
        picks = plain_path(predictions[:, seen], target[seen], weight[seen], 8)
        for step in range(8):
            average = predictions[picks[: step + 1]].mean(0)
            along[step, fold] = plain_loss(average[out], target[out], weight[out]) * weight[out].sum()
    np.testing.assert_allclose(found.losses, along.sum(1) / weight.sum(), rtol=1e-12)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_weights_are_shares_and_repeat_with_their_key(kind):
    predictions, target, weight = make_data(kind, num_rows=120)
    first, again, other = (
        greedy_weights(predictions, target, weight=weight, num_steps=10, key=key) for key in (Key(1), Key(1), Key(2))
    )
    assert first.weights.sum() == pytest.approx(1)
    assert first.weights.min() >= 0
    np.testing.assert_array_equal(first.weights, again.weights)
    assert first.loss == again.loss
    assert not np.array_equal(first.losses, other.losses)
    assert list(first.equal_losses) == [1, 2, 4, 8, 12]
    assert first.equal_losses[1] == first.single_loss
    assert set(first.chosen) == set(np.flatnonzero(first.weights))
    assert first.weights[first.chosen[0]] == first.weights.max()


def test_rows_of_weight_zero_are_not_there():
    predictions, target = normal_members(0, num_rows=60)
    weight = np.ones(60)
    weight[40:] = 0
    whole, part = greedy_weights(predictions, target, weight=weight), greedy_weights(predictions[:, :40], target[:40])
    np.testing.assert_array_equal(whole.weights, part.weights)
    assert whole.num_rows == 40


def test_good_members_are_averaged_and_bad_ones_left_out():
    predictions, target = normal_members(0, num_rows=1000)
    found = greedy_weights(predictions, target)
    np.testing.assert_allclose(found.weights, [1 / 3, 1 / 3, 1 / 3, 0], atol=0.06)
    assert found.loss == pytest.approx(1 / 3, rel=0.15)
    assert found.single_loss - found.loss > 5 * found.standard_error


@pytest.mark.parametrize("stds", [(0.1, 4.0, 4.0, 4.0), (1.0,)])
def test_the_best_member_alone_is_kept_where_averaging_does_not_pay(stds):
    predictions, target = normal_members(1, stds=stds)
    found = greedy_weights(predictions, target)
    assert found.is_single
    assert found.chosen == (0,) == (found.single,)
    assert found.num_steps == 0


def test_equal_members_are_one_member():
    predictions, target = normal_members(1, stds=(1.0,))
    found = greedy_weights(np.repeat(predictions, 4, axis=0), target)
    assert found.chosen == (0,)
    assert found.loss == pytest.approx(found.single_loss) == pytest.approx(found.naive_loss)


def test_the_quoted_loss_is_honest_where_that_of_a_bare_path_flatters():
    """Independent errors of standard deviation 2: weights w have the loss 4 Σ w² on new rows."""
    ours, bare = [], []
    for seed in range(60):
        predictions, target = normal_members(seed, num_rows=40, stds=[2.0] * 10)
        found = greedy_weights(predictions, target, num_steps=12, num_bags=3, key=Key(seed))
        ours.append((found.loss, 4 * np.square(found.weights).sum()))
        path = np.bincount(plain_path(predictions, target, np.ones(40), 12), minlength=10) / 12
        bare.append((average_loss(predictions, target, path), 4 * np.square(path).sum()))
    for quoted, is_honest in ((ours, True), (bare, False)):
        bias = np.array(quoted) @ [1, -1]
        assert (abs(bias.mean()) < 3 * bias.std() / np.sqrt(60)) == is_honest
    assert np.mean(ours, axis=0)[1] < np.mean(bare, axis=0)[1]  # the guard also predicts better


def test_a_later_run_goes_on_with_more_members():
    predictions, target = normal_members(3, num_rows=400, stds=(2.0, 2.0, 0.4, 0.4))
    early = greedy_weights(predictions[:2], target)
    late = greedy_weights(predictions, target, start=early)
    cold = greedy_weights(predictions, target)
    assert late.counts.shape == (6, 10, 4)
    assert late.weights[2:].sum() > 0.8
    assert average_loss(predictions, target, late.weights) < 1.1 * average_loss(predictions, target, cold.weights)
    # What was held out stays so: both runs have the same folds.
    assert late.single_loss == cold.single_loss


def test_two_rows_are_enough():
    assert greedy_weights([[0.0, 1.0], [1.0, 0.0]], [0.0, 1.0]).weights.sum() == 1


P = np.full((2, 4, 3), 1 / 3)
Y = np.array([0, 1, 2, 0])


@pytest.mark.parametrize(
    ("predictions", "target", "settings", "message"),
    [
        (P, Y[:3], {}, "`target` must have one value for each of 4 rows"),
        (P, [0, 1, 3, 0], {}, "`target` must hold class codes 0 … 2, but row 2 has 3"),
        (P, [0, 0.5, 1, 0], {}, "row 1 has 0.5"),
        (P * 2, Y, {}, "sum is off by 1"),
        (P - 0.5, Y, {}, "one is -0.1"),
        (np.where(P > 0, np.nan, P), Y, {}, "`predictions` holds NaN"),
        (P[..., :1] * 3, Y, {}, "a column for each class"),
        (P[0, 0], Y, {}, "2 or 3 axes"),
        (P, Y, {"weight": [1, 1, -1, 1]}, "`weight` must be ≥ 0 and not all zero, but one is -1"),
        (P, Y, {"weight": [0, 0, 0, 0]}, "all are zero"),
        (P, Y, {"weight": [1, 0, 0, 0]}, "Only one row counts"),
        (P, Y, {"task_kind": "regression"}, "of a regression task must have the axes"),
        (P[..., 0], Y, {"task_kind": "binary"}, "of a binary task must have the axes"),
        (P[..., 0] * 1e300, Y, {}, "further than 1e\\+150"),
        ([["a", "b"]], [0.0, 1.0], {}, "real numbers, but its dtype is <U1"),
        ([[1.0], [1.0, 2.0]], [0.0, 1.0], {}, "array of numbers"),
        (P + 0j, Y, {}, "real numbers"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_are_refused(predictions, target, settings, message):
    with pytest.raises(DataError, match=message):
        greedy_weights(predictions, target, **settings)


@pytest.mark.parametrize(
    "settings",
    [{"num_steps": 0}, {"num_folds": 1}, {"num_bags": 0}, {"key": 3}, {"task_kind": "ranking"}, {"start": np.ones(2)}],
)
def test_settings_out_of_range_are_refused_by_name(settings):
    with pytest.raises(ConfigError, match=f"`{next(iter(settings))}`"):
        greedy_weights(P, Y, **settings)


def test_a_start_from_elsewhere_is_refused():
    predictions, target = normal_members(0, num_rows=40)
    early = greedy_weights(predictions, target)
    for settings in ({"key": Key(5)}, {"num_bags": 3}, {"num_folds": 4}):
        with pytest.raises(ConfigError, match="same rows"):
            greedy_weights(predictions, target, start=early, **settings)
    with pytest.raises(ConfigError, match="same rows"):
        greedy_weights(predictions[:, :30], target[:30], start=early)
    with pytest.raises(ConfigError, match="4 members"):
        greedy_weights(predictions[:3], target, start=early)


def test_bags_see_half_of_the_rows_up_to_a_limit(monkeypatch):
    sizes = []
    path = _paths._path
    monkeypatch.setattr(_paths, "_path", lambda pool, *rest: sizes.append(pool.evidence.shape) or path(pool, *rest))
    predictions, target = normal_members(0, num_rows=100, stds=[1.0] * 30)
    greedy_weights(predictions, target, num_steps=2)
    assert {rows for _, rows in sizes} == {40, 50}
    assert 10 < np.mean([members for members, _ in sizes]) < 20
    sizes.clear()
    monkeypatch.setattr(_paths, "_MOST_ROWS", 12)
    greedy_weights(predictions[:8], target, num_steps=2)
    assert set(sizes) == {(8, 12)}
