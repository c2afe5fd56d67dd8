"""Random numbers: exact where they can be, within stated bounds of their law where not, and functions of their key."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from poise._random import Key
from poise.kernels.reference import drop_threshold, words

MANY = 1_000_000
KEY = Key(2024).stream("test")


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.75, 0.99])
def test_drop_rate_is_within_four_sigma_and_scale_is_exact(p):
    mask = KEY.keep_mask(MANY, p=p, dtype=torch.float64)
    effective = round(p * 2**16) / 2**16
    sigma = math.sqrt(effective * (1 - effective) / MANY)
    assert float((mask == 0).double().mean()) == pytest.approx(effective, abs=4 * sigma)
    assert abs(effective - p) <= 2**-17
    assert set(mask.unique().tolist()) == {0.0, 1 / (1 - effective)}


def test_drop_probability_zero_keeps_all_and_one_below_one_keeps_some():
    assert torch.equal(KEY.keep_mask(1000, p=0.0), torch.ones(1000))
    assert drop_threshold(1 - 1e-12) == 2**16 - 1
    assert KEY.keep_mask(MANY, p=1 - 1e-12).sum() > 0


@pytest.mark.parametrize("draw", ["uniform", "normal", "keep_mask"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_numbers_are_the_same_in_every_dtype(draw, dtype):
    settings = {"p": 0.5} if draw == "keep_mask" else {}
    low, high = (getattr(KEY, draw)(999, **settings, dtype=one) for one in (dtype, torch.float64))
    assert low.dtype == dtype
    assert torch.equal(low, high.to(dtype))


def test_a_draw_is_a_function_of_its_key_alone():
    state = torch.random.get_rng_state()
    first = KEY.at(9).normal(50)
    KEY.uniform(7)
    torch.rand(3)
    assert torch.equal(first, KEY.at(9).normal(50))
    assert torch.equal(first, Key(KEY.seed, 9).normal(5, 10).flatten())
    torch.random.set_rng_state(state)


def test_streams_are_named_by_words_and_kept_apart_from_steps():
    names = [("a",), ("b",), ("a", 1), ("a", "1"), ("a1",), ("a", 1, ""), ()]
    seeds = {KEY.stream(*name).seed for name in names} | {KEY.seed}
    assert len(seeds) == len(names) + 1
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert KEY.at(3).stream("a") == KEY.stream("a").at(3)
    assert Key(7).stream("dropout", 2).seed == 6581134650581988816  # pinned: runs must repeat in later versions


def correlation(one, other):
    return float(np.corrcoef(one.double().numpy(), other.double().numpy())[0, 1])


@pytest.mark.parametrize("draw", ["uniform", "normal", "keep_mask"])
def test_streams_steps_seeds_and_neighbors_are_uncorrelated(draw):
    num = 200_000
    settings = {"p": 0.5} if draw == "keep_mask" else {}
    base = getattr(KEY, draw)(num, **settings)
    others = {
        "next step": KEY.at(1),
        "step in the upper word": KEY.at(2**32),
        "next seed": Key(KEY.seed + 1),
        "seed in the upper word": Key(KEY.seed ^ 2**32),
        "other stream": KEY.stream("other"),
    }
    bound = 4.5 / math.sqrt(num)
    for name, key in others.items():
        assert abs(correlation(base, getattr(key, draw)(num, **settings))) < bound, name
    for lag in (1, 2, 4, num // 2, num // 4, num // 8):  # words and half-words lie that far apart
        assert abs(correlation(base[:-lag], base[lag:])) < 4.5 / math.sqrt(num - lag), lag


def test_uniform_range_mean_and_grid():
    u = KEY.uniform(MANY, dtype=torch.float64)
    assert u.min() >= 0
    assert u.max() < 1
    assert float(u.mean()) == pytest.approx(0.5, abs=4 / math.sqrt(12 * MANY))
    assert torch.equal((u * 2**24).round(), u * 2**24)
    assert stats.kstest(u.numpy(), "uniform").pvalue > 1e-3
    assert torch.equal(u[:8], (words(KEY.seed, 0, MANY // 4).flatten()[:8] >> 8).double() / 2**24)


def test_normal_moments_and_law():
    z = KEY.normal(MANY, dtype=torch.float64).numpy()
    assert np.isfinite(z).all()
    for power, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert np.mean(z**power) == pytest.approx(expected, abs=4 * math.sqrt(variance / MANY)), power
    assert stats.kstest(z, "norm").pvalue > 1e-3
    assert KEY.normal(7).shape == (7,)


def test_normal_is_box_and_muller_of_numbers_that_are_never_zero():
    drawn = words(KEY.seed, 0, 2).flatten().tolist()
    radius = [math.sqrt(-2 * math.log((word + 0.5) / 2**32)) for word in drawn[:4]]
    angle = [2 * math.pi * (word + 0.5) / 2**32 for word in drawn[4:]]
    expected = [r * f(a) for f in (math.cos, math.sin) for r, a in zip(radius, angle, strict=True)]
    assert KEY.normal(8, dtype=torch.float64).tolist() == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 3.0])
def test_beta_moments_and_law(alpha):
    lam = KEY.beta(alpha, 50_000).numpy()
    assert ((lam >= 0) & (lam <= 1)).all()
    variance = 1 / (4 * (2 * alpha + 1))
    assert lam.mean() == pytest.approx(0.5, abs=4 * math.sqrt(variance / 50_000))
    assert lam.var() == pytest.approx(variance, rel=0.03)
    for point in (0.001, 0.1, 0.3, 0.5, 0.8, 0.99):  # not a KS test: at alpha = 0.1, 1 % of the mass rounds to 1
        share = stats.beta(alpha, alpha).cdf(point)
        assert np.mean(lam <= point) == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 50_000)), point


@pytest.mark.parametrize("high", [1, 2, 7, 1000, 2**31])
def test_integers_are_in_range_and_uniform(high):
    drawn = KEY.integers(high, 100_000)
    assert drawn.dtype == torch.int64
    assert drawn.min() >= 0
    assert drawn.max() < high
    num_bins = min(high, 100)
    counts = np.bincount((drawn.numpy() * num_bins // high), minlength=num_bins)
    assert num_bins == 1 or stats.chisquare(counts).pvalue > 1e-3


def test_permutation_is_one_and_all_orders_are_as_likely():
    for num in (0, 1, 2, 1000):
        assert torch.equal(KEY.permutation(num).sort().values, torch.arange(num))
    orders = [tuple(KEY.at(step).permutation(3).tolist()) for step in range(6000)]
    counts = [orders.count(one) for one in sorted(set(orders))]
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > 1e-3
    fixed = int((KEY.permutation(100_000) == torch.arange(100_000)).sum())
    assert fixed < 8  # Poisson with mean 1
    num = 100_000  # ties among the sorted numbers would keep their order and show as too many ascents
    ascents = int((KEY.permutation(num).diff() > 0).sum())
    assert ascents == pytest.approx((num - 1) / 2, abs=4 * math.sqrt((num + 1) / 12))
