"""Moments against torch's, over groups, masks and parts; the weights of running averages."""

import pytest
import torch

from poise.functional.moments import Moments, ghost_sizes, kept_variance, merge, moments_of, rows_of, weight_of_new


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def check(moments, group, values):
    """Of values (n, C)."""
    assert moments.number[group] == len(values)
    torch.testing.assert_close(moments.mean[group], values.mean(0))
    torch.testing.assert_close(moments.var[group], values.var(0, correction=0))


def test_of_all_of_groups_and_of_what_is_not_masked():
    x = randn(6, 3, 4)
    check(moments_of(x), 0, x.transpose(1, 2).flatten(0, 1))
    labels = torch.tensor([0, 2, 2, 0, 2, 0])
    mask = torch.rand(6, 1, 4, generator=torch.Generator().manual_seed(0)) < 0.6
    grouped = moments_of(x, mask=mask, labels=labels, num_groups=3)
    for group in (0, 2):
        rows, counts = x[labels == group].transpose(1, 2), mask[labels == group].squeeze(1)
        check(grouped, group, rows[counts])
    assert grouped.number[1] == 0
    assert bool((grouped.mean[1] == 0).all())
    assert bool((grouped.var[1] == 0).all())
    assert rows_of(grouped.mean, labels).shape == (6, 3, 1)


def test_a_mean_far_from_zero_costs_no_digits():
    x = randn(100, 2, 3).float() + 1e4
    expected = x.double().transpose(0, 1).flatten(1).var(1, correction=0)
    torch.testing.assert_close(moments_of(x).var[0].double(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("sizes", [[5, 3, 4], [1, 11], [12], [0, 12], [6, 0, 6]])
def test_parts_merge_to_the_whole(sizes):
    x = randn(12, 3, 2) + 100
    merged = moments_of(x[:0])
    for part in x.split(sizes):
        merged = merge(merged, moments_of(part))
    check(merged, 0, x.transpose(1, 2).flatten(0, 1))


def test_the_kept_variance_is_torchs():
    x = randn(5, 3, 1)
    moments = moments_of(x)
    torch.testing.assert_close(kept_variance(moments, unbiased=True)[0], x[:, :, 0].var(0))
    torch.testing.assert_close(kept_variance(moments, unbiased=False)[0], x[:, :, 0].var(0, correction=0))
    single = Moments(torch.ones(1, 1), torch.ones(1, 3), torch.zeros(1, 3))
    assert bool((kept_variance(single, unbiased=True) == 0).all())


@pytest.mark.parametrize("momentum", [None, 0.1, 1.0])
def test_debiased_weights_sum_to_one_and_forget_what_was_there(momentum):
    """The average of a constant is that constant, whatever it began with."""
    average = torch.tensor(7.0, dtype=torch.float64)
    for step in range(1, 6):
        weight = weight_of_new(torch.tensor(step), momentum, debias=momentum is not None)
        average = average + weight * (3.0 - average)
        torch.testing.assert_close(average, torch.tensor(3.0, dtype=torch.float64))
    assert weight_of_new(torch.tensor([0, 9]), 0.1, debias=False) == 0.1
    assert weight_of_new(torch.tensor([0, 1, 4]), None, debias=True).tolist() == [1.0, 1.0, 0.25]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("rows", range(1, 14))
def test_ghosts_take_all_rows_in_sizes_that_differ_by_one(rows, size):
    for fewest in (1, 2):
        dealt = ghost_sizes(rows, size, fewest=fewest) if rows >= fewest else [(1, rows)]
        assert sum(number * each for number, each in dealt) == rows
        assert len(dealt) <= 2
        sizes = [each for _, each in dealt]
        assert max(sizes) - min(sizes) <= 1
        assert sizes == sorted(sizes, reverse=True)
        assert min(sizes) >= min(fewest, rows)
        assert sum(number for number, _ in dealt) == max(1, min(rows // size, rows // fewest))
