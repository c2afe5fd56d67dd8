"""Random numbers and masks in plain torch: Philox4x32-10.

Reference: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 10
WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)

LANES = 8  # 16-bit lanes of a block: two in each of its four words
TILE_BLOCKS = 512
MASK_LEVELS = 1 << 16


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


def drop_threshold(p: float) -> int:
    """round(p · 2^16), kept below 2^16 so that something always survives."""
    return min(round(p * MASK_LEVELS), MASK_LEVELS - 1)


def keep_mask(key: int, step: int, num: int, p: float) -> Tensor:
    """Inverted-dropout mask of `num` elements in float64: 0 with probability `p`, otherwise 1 / (effective keep rate).

    Each element owns 16 bits and is dropped if they are below t = round(p · 2^16), so the effective drop rate is
    t / 2^16; scaling by its complement keeps the mean exact. Elements come in tiles of 512 blocks. Within a tile of n
    elements, m = ceil(n / 8), element e owns lane e // m of block e % m: lanes lie side by side, so that vector units
    write them in order, and tiles are short, so that a mask is made where it is used. Lane l is the low (l even) or
    high half of word l // 2.

    Args:
        key: 64-bit integer.
        step: 64-bit integer.
        num: Number of elements, ≥ 0.
        p: Drop probability, in [0, 1).
    """
    size, threshold = TILE_BLOCKS * LANES, drop_threshold(p)
    whole = num // size * TILE_BLOCKS
    drawn = words(key, step, whole + -(-(num % size) // LANES))
    lanes = torch.stack((drawn & 0xFFFF, drawn >> 16), dim=1).reshape(LANES, -1)
    tiles = lanes[:, :whole].reshape(LANES, -1, TILE_BLOCKS).transpose(0, 1)
    ordered = torch.cat((tiles.flatten(), lanes[:, whole:].flatten()))[:num]
    return (ordered >= threshold).to(torch.float64).mul_(MASK_LEVELS / (MASK_LEVELS - threshold))
