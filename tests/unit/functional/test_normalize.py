"""Normalization of parts in one kernel, and the factors of renormalization."""

import pytest
import torch

from poise.functional.moments import moments_of
from poise.functional.normalize import batch_factors, by_position, normalize_parts


def randn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("places", [(), (4,), (2, 3)])
def test_parts_are_normalized_apart(number, places):
    x, weight, bias = randn(6, 3, *places), randn(3), randn(3)
    y, mean, var = normalize_parts(x, weight, bias, eps=1e-3, number=number, like=weight)
    for index, (part, out) in enumerate(zip(x.chunk(number), y.chunk(number), strict=True)):
        expected = torch.nn.functional.batch_norm(part, None, None, weight, bias, training=True, eps=1e-3)
        torch.testing.assert_close(out, expected)
        values = part.transpose(0, 1).flatten(1)
        torch.testing.assert_close(mean[index], values.mean(1))
        torch.testing.assert_close(var[index], values.var(1))


def test_factors_of_small_groups_are_those_of_what_was_kept():
    kept_mean, kept_var = randn(1, 3), randn(1, 3).square()
    mean, factor, offset = batch_factors(moments_of(randn(1, 3, 1)), kept_mean, kept_var, eps=0.1, renorm=(2.0, 2.0))
    torch.testing.assert_close(mean, kept_mean)
    torch.testing.assert_close(factor, (kept_var + 0.1).rsqrt())
    assert torch.equal(offset, torch.zeros(1, 3, dtype=torch.float64))


def test_positions_in_single_precision_at_least():
    assert by_position(randn(2, 3)).shape == (2, 3, 1)
    assert by_position(randn(2, 3, 4, 5)).shape == (2, 3, 20)
    assert by_position(randn(2, 3).half()).dtype == torch.float32
    assert by_position(randn(2, 3)).dtype == torch.float64
