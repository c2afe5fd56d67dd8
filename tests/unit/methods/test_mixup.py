"""Mixup on a batch large enough to see λ: rows, targets and weights mix alike, categories in expectation."""

import math

import pytest
import torch

from poise._random import Key
from poise.data import Inputs
from poise.methods import Batch, Mixup

NUM = 4000


def make_batch(num=NUM):
    """Row i is known by its number i, its category i, its target i and its weight i."""
    rows = torch.arange(num, dtype=torch.float64)
    inputs = Inputs(rows[:, None], torch.arange(num)[:, None])
    return Batch(inputs, torch.stack((rows, -rows), dim=1), rows.clone())


@pytest.mark.parametrize("seed", [1, 2, 5])
def test_all_of_a_row_mixes_with_the_same_partner(seed):
    batch, key = make_batch(), Key(seed)
    mixed = Mixup(alpha=1.0).transform(batch, key)
    lam, partner = float(key.stream("lam").beta(1.0, 1)), key.stream("partner").permutation(NUM)
    expected = lam * batch.weight + (1 - lam) * partner
    for found in (mixed.inputs.numeric[:, 0], mixed.targets[:, 0], -mixed.targets[:, 1], mixed.weight):
        torch.testing.assert_close(found, expected)
    codes = mixed.inputs.categorical[:, 0]
    own, other = codes == torch.arange(NUM), codes == partner
    assert (own | other).all()
    assert float(own.double().mean()) == pytest.approx(lam, abs=4 * math.sqrt(lam * (1 - lam) / NUM) + 1 / NUM)
    assert 0.05 < lam < 0.95
    assert abs(lam - 0.5) > 0.05  # otherwise the share of categories would show nothing


def test_totals_are_kept_and_the_given_batch_is_left_alone():
    batch = make_batch()
    mixed = Mixup(alpha=0.4).transform(batch, Key(0))
    for one, other in ((mixed.weight, batch.weight), (mixed.targets, batch.targets)):
        torch.testing.assert_close(one.sum(), other.sum())
    assert all(torch.equal(*pair) for pair in zip(batch.inputs, make_batch().inputs, strict=True))


def test_lam_and_partners_change_with_the_step():
    first, second = (Mixup(alpha=1.0).transform(make_batch(), Key(0, step)) for step in (0, 1))
    assert not torch.equal(first.weight, second.weight)


@pytest.mark.parametrize("num", [1, 2])
def test_small_batches(num):
    mixed = Mixup(alpha=1.0).transform(make_batch(num), Key(0))
    assert mixed.weight.shape == (num,)
    assert mixed.weight.sum() == pytest.approx(num * (num - 1) / 2)
