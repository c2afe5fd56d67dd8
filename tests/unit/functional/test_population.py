"""Moments of parts merge into the moments of the whole."""

import pytest
import torch

from poise.functional.population import Population


def reference(x):
    values = x.double().transpose(0, 1).flatten(1)
    return values.mean(1), values.var(1, correction=0)


@pytest.mark.parametrize("shape", [(53, 3), (53, 3, 4), (53, 3, 2, 5), (53, 3, 2, 2, 2)])
@pytest.mark.parametrize("sizes", [[53], [1, 52], [16, 16, 16, 5], [1] * 53])
def test_parts_are_the_whole(shape, sizes):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3 + 1000
    whole = None
    for part in x.split(sizes):
        moments = Population.of(part)
        whole = moments if whole is None else whole.merged(moments)
    mean, var = reference(x)
    assert whole.count == x.numel() // 3
    torch.testing.assert_close(whole.mean, mean, rtol=1e-13, atol=0)
    torch.testing.assert_close(whole.var, var, rtol=1e-12, atol=0)


def test_a_large_mean_does_not_swallow_the_variance():
    x = torch.randn(1000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 1e8
    parts = [Population.of(part) for part in x.split(7)]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.merged(part)
    torch.testing.assert_close(whole.var, x.var(0, correction=0), rtol=1e-9, atol=0)


def test_masked_values_do_not_count_even_where_they_are_nan():
    x = torch.randn(4, 2, 5, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(5) < torch.tensor([5, 3, 1, 0])[:, None]
    hidden = x.masked_fill(~mask[:, None], float("nan"))
    moments = Population.of(hidden, mask)
    kept = torch.cat([x[row, :, : int(mask[row].sum())] for row in range(4)], dim=1).double()
    assert moments.count == 9
    torch.testing.assert_close(moments.mean, kept.mean(1))
    torch.testing.assert_close(moments.var, kept.var(1, correction=0))


def test_nothing_is_neutral():
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    some, none = Population.of(x), Population.of(x, torch.zeros(4, dtype=torch.bool))
    assert none.count == 0
    for both in (some.merged(none), none.merged(some)):
        assert both.count == 4
        assert torch.equal(both.mean, some.mean)
        assert torch.equal(both.squares, some.squares)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_is_read_in_float64(dtype):
    x = torch.full((70_000, 1), 3.0, dtype=dtype)
    moments = Population.of(x)
    assert moments.mean.dtype == torch.float64
    assert (moments.mean.item(), moments.var.item()) == (3.0, 0.0)
