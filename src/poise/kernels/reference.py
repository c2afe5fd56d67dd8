"""Philox4x32-10 in plain torch.

Reference: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 10
WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox(counter: Tensor, key: tuple[int, int]) -> Tensor:
    """Philox4x32-10: four 32-bit words for each 128-bit counter.

    Args:
        counter: int64 of shape (4, n), each entry in [0, 2^32).
        key: Two 32-bit words.

    Returns:
        int64 of shape (4, n), each entry in [0, 2^32).
    """
    c0, c1, c2, c3 = (word.clone() for word in counter)
    k0, k1 = key
    for _ in range(ROUNDS):
        # The product of two 32-bit words may pass 2^63; int64 wraps, so the upper half is masked after the shift.
        p0, p1 = c0.mul_(_MULTIPLIERS[0]), c2.mul_(_MULTIPLIERS[1])
        h0, h1 = (p0 >> 32).bitwise_and_(WORD), (p1 >> 32).bitwise_and_(WORD)
        c0, c1 = h1.bitwise_xor_(c1).bitwise_xor_(k0), p1.bitwise_and_(WORD)
        c2, c3 = h0.bitwise_xor_(c3).bitwise_xor_(k1), p0.bitwise_and_(WORD)
        k0, k1 = (k0 + _WEYL[0]) & WORD, (k1 + _WEYL[1]) & WORD
    return torch.stack((c0, c1, c2, c3))


def words(key: int, step: int, num_blocks: int) -> Tensor:
    """The first `num_blocks` blocks of four words at `step` of the stream `key`.

    The counter is (block, 0, step's low word, step's high word) and the key is split into its two halves.

    Args:
        key: 64-bit integer.
        step: 64-bit integer.
        num_blocks: Number of blocks, below 2^32.

    Returns:
        int64 of shape (4, num_blocks): word w of block i at [w, i].
    """
    counter = torch.zeros(4, num_blocks, dtype=torch.int64)
    torch.arange(num_blocks, out=counter[0])
    counter[2] = step & WORD
    counter[3] = (step >> 32) & WORD
    return philox(counter, (key & WORD, (key >> 32) & WORD))
