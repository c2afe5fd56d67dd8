"""Random numbers of machine code: the bits of the reference, pinned, and statistics that a bias could not pass."""

import hashlib
import itertools
import math

import numpy as np
import pytest
import torch

from poise._random import Key
from poise.kernels import reference
from poise.kernels.cpu import _philox, streams

from ._called import called

threshold_of, add_normal, keep_mask, permutation = (
    called(one) for one in (_philox.threshold_of, _philox.add_normal, _philox.keep_mask, _philox.permutation)
)

KEYS = [
    (0, 0),
    (7, 3),
    (2**64 - 1, 2**64 - 1),
    (0x123456789ABCDEF0, 0xFEDCBA9876543210),
    (2**32, 2**32),
    (1, 2**33 + 5),
]
SIZES = [0, 1, 2, 3, 7, 8, 9, 63, 511, 4095, 4096, 4097, 8191, 8192, 12_301]
PROBABILITIES = [0.0, 1e-9, 2.0**-17, 1.5 * 2.0**-16, 0.1, 0.5, 0.9999, 1 - 1e-12]
GUARD = 7.0


def planar(key, step, size):
    """`size` words of the reference, word 0 of all blocks first."""
    return reference.words(key, step, (size + 3) // 4).flatten()[:size].numpy()


@pytest.mark.parametrize(("key", "step"), KEYS)
def test_words_are_those_of_the_reference(key, step):
    for size in SIZES:
        found = streams.words(size, key, step)
        assert found.dtype == np.uint32
        np.testing.assert_array_equal(found, planar(key, step, size))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("key", "step"), KEYS)
def test_masks_are_those_of_the_reference(key, step, dtype):
    for size, p in itertools.product(SIZES, (0.1, 0.5)):
        expected = reference.keep_mask(key, step, size, p).numpy().astype(dtype)
        np.testing.assert_array_equal(streams.keep_mask(size, key, step, p, dtype), expected)


@pytest.mark.parametrize("p", PROBABILITIES)
def test_masks_are_those_of_the_reference_for_every_probability(p):
    for size in (1, 4097):
        expected = reference.keep_mask(11, 4, size, p).numpy()
        np.testing.assert_array_equal(streams.keep_mask(size, 11, 4, p, np.float64), expected)


def test_thresholds_round_as_the_reference_rounds():
    halves = [(k + 0.5) / 65536 for k in range(40)]  # round half to even
    for p in (*PROBABILITIES, *halves, 1 / 3):
        assert threshold_of(p) == reference.drop_threshold(p)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_uniform_numbers_are_upper_bits_of_words(dtype):
    for (key, step), size in itertools.product(KEYS, (0, 1, 2, 5, 4097)):
        expected = (planar(key, step, size) >> 8).astype(dtype) / dtype(2**24)
        np.testing.assert_array_equal(streams.uniform(size, key, step, dtype), expected)


def box_muller(key, step, size):
    half = (size + 1) // 2
    drawn = (planar(key, step, 2 * half).astype(np.float64) + 0.5) * 2.0**-32
    radius, angle = np.sqrt(-2 * np.log(drawn[:half])), math.tau * drawn[half:]
    return np.concatenate((radius * np.cos(angle), radius * np.sin(angle)))[:size]


@pytest.mark.parametrize(("key", "step"), KEYS)
def test_normal_numbers_are_those_of_box_and_muller(key, step):
    for size in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1001, 4096):
        expected = box_muller(key, step, size)
        np.testing.assert_allclose(streams.normal(size, key, step, np.float64), expected, rtol=0, atol=1e-12)
        found = streams.normal(size, key, step, np.float32)
        np.testing.assert_array_equal(found, streams.normal(size, key, step, np.float64).astype(np.float32))


def test_noise_is_added_and_scaled_and_nothing_else_is_touched():
    out, bits = np.full(20, GUARD), np.full(30, 99, np.uint32)
    out[:13] = np.arange(13)
    add_normal(out, 13, 0.25, np.uint64(5), np.uint64(6), bits)
    np.testing.assert_allclose(out[:13], np.arange(13) + 0.25 * box_muller(5, 6, 13), rtol=0, atol=1e-12)
    assert (out[13:] == GUARD).all()
    assert (bits[13 + 4 :] == 99).all()


@pytest.mark.parametrize("size", [0, 1, 7, 9, 4095, 4096, 4097])
def test_a_mask_and_its_scratch_end_where_they_should(size):
    tile = reference.TILE_BLOCKS * reference.LANES
    out, scratch = np.full(size + 9, GUARD, np.float32), np.full(tile + 9, GUARD, np.float32)
    keep_mask(out, size, np.uint64(5), np.uint64(6), 0.5, scratch[:tile])
    np.testing.assert_array_equal(out[:size], reference.keep_mask(5, 6, size, 0.5).numpy())
    assert (out[size:] == GUARD).all()
    assert (scratch[tile:] == GUARD).all()


@pytest.mark.parametrize("size", [0, 1, 2, 5, 64, 1001])
def test_permutations_are_those_of_the_key(size):
    for seed, step in KEYS:
        out, bits = np.full(size + 3, -1), np.full(2 * size + 6, 99, np.uint32)
        permutation(out, size, np.uint64(seed), np.uint64(step), bits)
        np.testing.assert_array_equal(out[:size], Key(seed, step).permutation(size).numpy())
        drawn = [int(one) for one in planar(seed, step, 2 * size)]
        by_hand = sorted(range(size), key=lambda i, drawn=drawn: (drawn[i] << 31) | (drawn[size + i] >> 1))
        assert out[:size].tolist() == by_hand
        assert (out[size:] == -1).all()
        assert (bits[2 * size + 3 :] == 99).all()


def test_the_layout_is_pinned():
    """Runs must repeat in later versions. A change here is a change of every training."""
    assert streams.words(5, 7, 3).tolist() == PINNED_WORDS
    assert np.flatnonzero(streams.keep_mask(40, 7, 3, 0.5, np.float32) == 0).tolist() == PINNED_DROPPED
    assert streams.uniform(3, 7, 3, np.float64).tolist() == PINNED_UNIFORM
    assert streams.normal(3, 7, 3, np.float64) == pytest.approx(PINNED_NORMAL, abs=1e-12)
    assert Key(7, 3).permutation(8).tolist() == PINNED_ORDER
    mask = streams.keep_mask(3 * 4096 + 100, 7, 3, 0.3, np.float32) > 0
    assert hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()[:16] == PINNED_MASK


PINNED_WORDS = [2545112793, 2522840782, 531643458, 1975137240, 698849000]
PINNED_DROPPED = [0, 1, 2, 4, 7, 8, 10, 11, 12, 13, 15, 16, 21, 22, 24, 25, 26, 27, 28, 30, 37, 38]
PINNED_UNIFORM = [0.5925801992416382, 0.12378287315368652, 0.1627134084701538]
PINNED_NORMAL = [0.5333479457398803, -1.6553816390393319, 0.8729707402801066]
PINNED_ORDER = [4, 2, 3, 5, 1, 7, 0, 6]
PINNED_MASK = "fc7065192a39df3d"

# Statistics. Keys are fixed, so what passes once passes always; bounds are 4 sigma of what chance would do.

MANY = 100_000_000
CHUNK = 1 << 22


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_the_kept_fraction_of_a_hundred_million_draws(p):
    """Sigma is 3e-5 and 5e-5: a drop rate wrong by 3e-4, one in three hundred at p = 0.1, fails for certain."""
    kept, drawn, step = np.zeros(8), 0, 0
    while drawn < MANY:
        mask = streams.keep_mask(CHUNK, 2024, step, p, np.float32)
        kept += np.count_nonzero(mask.reshape(-1, 8, reference.TILE_BLOCKS), axis=(0, 2))  # lane by lane
        drawn, step = drawn + CHUNK, step + 1
    rate = 1 - reference.drop_threshold(p) / 2**16
    sigma = math.sqrt(rate * (1 - rate) / drawn)
    assert abs(kept.sum() / drawn - rate) < 4 * sigma
    assert np.abs(kept / (drawn / 8) - rate).max() < 4 * sigma * math.sqrt(8)


NUM = 1 << 24
BOUND = 4 / math.sqrt(NUM)


def dropped(key, step=0, num=NUM):
    return streams.keep_mask(num, key, step, 0.5, np.float32) == 0


def correlation(one, other):
    """Of masks at p = 1/2, whose mean and variance are known: 1 - 2 · (share of places where they differ)."""
    return 1 - 2 * np.count_nonzero(one != other) / one.size


@pytest.fixture(scope="module")
def base():
    return dropped(2024)


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 7, 8, 64, 256, 512, 1024, 2048, 4095, 4096, 4097, 8192, 1 << 20])
def test_neighbors_are_uncorrelated(base, lag):
    """Within lanes, between lanes of a word and of a block, between tiles. Of 1.7e7 pairs, sigma is 2.4e-4.

    A correlation of 0.0016 goes beyond 4 sigma with a probability of 99 %.
    """
    one, other = base[:-lag], base[lag:]
    assert abs(correlation(one, other)) < 4 / math.sqrt(one.size)


@pytest.mark.parametrize("step", [1, 2, 3, 100, 2**31, 2**32, 2**63])
def test_steps_are_uncorrelated(base, step):
    """As sure as for neighbors."""
    assert abs(correlation(base, dropped(2024, step))) < BOUND


@pytest.mark.parametrize("bit", [0, 1, 7, 31, 32, 33, 63])
def test_keys_that_differ_in_one_bit_are_uncorrelated(base, bit):
    """As sure as for neighbors."""
    assert abs(correlation(base, dropped(2024 ^ (1 << bit)))) < BOUND


def test_variants_and_layers_are_uncorrelated():
    """Sixteen variants with eight layers each: 8,128 pairs of 2^18 draws. No pair passes 5.5 sigma, 0.011.

    For all pairs together the sum of squares is chi-square: a correlation of 3e-4 in every pair would show.
    """
    num = 1 << 18
    keys = [Key(seed).stream("dropout", layer).seed for seed in range(16) for layer in range(8)]
    signs = torch.tensor(np.stack([dropped(key, num=num) for key in keys]), dtype=torch.float32).mul_(2).sub_(1)
    found = (signs @ signs.T / num)[tuple(torch.triu_indices(len(keys), len(keys), 1))].double()
    assert float(found.abs().max()) < 5.5 / math.sqrt(num)
    count = len(found)
    assert abs(float(found.square().sum()) * num - count) < 4 * math.sqrt(2 * count)


@pytest.mark.parametrize("draw", ["uniform", "normal"])
def test_numbers_are_uncorrelated_too(draw):
    """Neighbors, halves, steps and keys of 4e6 numbers: sigma is 5e-4, and 0.0032 is found with 99 %."""
    num = 1 << 22
    make = getattr(streams, draw)
    first = make(num, 2024, 0, np.float32)
    pairs = {lag: (first[:-lag], first[lag:]) for lag in (1, 2, 4, num // 4, num // 2)}
    pairs |= {name: (first, make(num, *name, np.float32)) for name in ((2024, 1), (2025, 0))}
    for name, (one, other) in pairs.items():
        assert abs(np.corrcoef(one, other)[0, 1]) < 4 / math.sqrt(one.size), name
    # Radius and angle of a pair are drawn together: their squares must not go together either.
    if draw == "normal":
        cosine, sine = first[: num // 2].astype(np.float64), first[num // 2 :].astype(np.float64)
        assert abs(np.corrcoef(cosine**2, sine**2)[0, 1]) < 4 / math.sqrt(num // 2)
