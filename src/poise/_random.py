"""Randomness as a function: every random number is Philox4x32-10 of (seed, stream, step, element).

A draw depends on nothing else: not on what was drawn before, not on threads, not on neighbours in a fleet.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from poise.kernels.cpu import streams

_DTYPES = {torch.float32: np.float32, torch.float64: np.float64}


@dataclass(frozen=True)
class Key:
    """Names a stream of random numbers.

    Args:
        seed: 64-bit integer; the seed of a variant, or of one of its streams.
        step: The training step, in [0, 2^64).

    Example:
        >>> key = Key(7).stream("dropout", 2).at(step=100)
        >>> bool((key.uniform(3) == Key(7).stream("dropout", 2).at(100).uniform(3)).all())
        True
    """

    seed: int
    step: int = 0

    def stream(self, *words_: str | int) -> Key:
        """An independent stream for `words_`: the seed becomes a 64-bit BLAKE2b hash of seed and words."""
        text = repr((self.seed, *words_)).encode()
        return Key(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little"), self.step)

    def at(self, step: int) -> Key:
        """The same stream at another step."""
        return Key(self.seed, step)

    def _words(self, num_words: int) -> Tensor:
        # Planar: word w of all blocks lies side by side, which is the order in which vector units make them.
        return torch.from_numpy(streams.words(num_words, self.seed, self.step).astype(np.int64))

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Uniform numbers in [0, 1), multiples of 2^-24, the same in every dtype."""
        drawn = streams.uniform(math.prod(shape), self.seed, self.step, _DTYPES.get(dtype, np.float64))
        return torch.from_numpy(drawn).to(dtype).reshape(shape)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal numbers by Box and Muller (1958), computed in float64."""
        drawn = streams.normal(math.prod(shape), self.seed, self.step, _DTYPES.get(dtype, np.float64))
        return torch.from_numpy(drawn).to(dtype).reshape(shape)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Integers in [0, high), high ≤ 2^31, by multiply and shift."""
        return (self._words(math.prod(shape)) * high >> 32).reshape(shape)

    def permutation(self, num: int) -> Tensor:
        """A permutation of 0 … num - 1: the order that sorts 63-bit random numbers."""
        return torch.from_numpy(streams.permutation(num, self.seed, self.step))

    def keep_mask(self, *shape: int, p: float, dtype: torch.dtype = torch.float32) -> Tensor:
        """Inverted-dropout mask: 0 with probability `p`, otherwise 1 / (effective keep rate).

        See `kernels.reference.keep_mask`.

        Args:
            shape: Shape of the mask.
            p: Drop probability, in [0, 1).
            dtype: Of the mask.
        """
        drawn = streams.keep_mask(math.prod(shape), self.seed, self.step, p, _DTYPES.get(dtype, np.float64))
        return torch.from_numpy(drawn).to(dtype).reshape(shape)

    def beta(self, alpha: float, *shape: int) -> Tensor:
        """Beta(alpha, alpha) numbers in float64 by inversion of the distribution function."""
        from scipy.special import betaincinv

        u = (self._words(math.prod(shape)).to(torch.float64) + 0.5) * 2.0**-32
        return torch.from_numpy(betaincinv(alpha, alpha, u.numpy())).reshape(shape)
