"""Philox4x32-10 against the published answers and against a slow version in Python's integers."""

import random

import pytest
import torch

from poise.kernels.reference import philox, words

MASK = 0xFFFFFFFF
KNOWN_ANSWERS = [  # of Salmon et al., Random123, kat_vectors
    ("0 0 0 0", "0 0", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def slow_philox(counter, key):
    """The definition, word by word, in integers that cannot overflow."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        high0, low0 = divmod(c0 * 0xD2511F53, 1 << 32)
        high1, low1 = divmod(c2 * 0xCD9E8D57, 1 << 32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % (1 << 32), (k1 + 0xBB67AE85) % (1 << 32)
    return [c0, c1, c2, c3]


def from_hex(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_known_answers(counter, key, expected):
    found = philox(torch.tensor(from_hex(counter)).reshape(4, 1), tuple(from_hex(key)))
    assert found.flatten().tolist() == from_hex(expected) == slow_philox(from_hex(counter), from_hex(key))


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_slow_version_on_random_counters(seed):
    rng = random.Random(seed)
    edges = [0, 1, MASK, MASK - 1, 1 << 31, (1 << 31) - 1]
    counters = [[rng.choice([*edges, rng.getrandbits(32)]) for _ in range(4)] for _ in range(50)]
    key = (rng.getrandbits(32), rng.choice([MASK, rng.getrandbits(32)]))
    counter = torch.tensor(counters).T.contiguous()
    before = counter.clone()
    assert philox(counter, key).T.tolist() == [slow_philox(one, key) for one in counters]
    assert torch.equal(counter, before)


@pytest.mark.parametrize(("key", "step"), [(0, 0), (2**64 - 1, 2**64 - 1), (0x123456789ABCDEF0, 0xFEDCBA9876543210)])
def test_words_place_block_and_step_in_the_counter(key, step):
    found = words(key, step, 5)
    for block in range(5):
        expected = slow_philox([block, 0, step & MASK, step >> 32], (key & MASK, key >> 32))
        assert found[:, block].tolist() == expected


def test_words_of_few_blocks_begin_those_of_many():
    assert torch.equal(words(7, 3, 1000)[:, :10], words(7, 3, 10))
    assert words(7, 3, 0).shape == (4, 0)
