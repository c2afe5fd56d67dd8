"""Greedy growth of an average: which member, added once more, lowers its loss most."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from poise.ensemble._pool import Pool
from poise.functional.predictions import Array, Codes, log_loss

_FIRST = 4
_SLACK = 1e-12  # rounding of a bound, relative to the loss


class Climb(ABC):
    """An average of members, as counts that grow.

    Args:
        num_members: M.
    """

    def __init__(self, num_members: int) -> None:
        self.counts = np.zeros(num_members)

    @property
    def size(self) -> float:
        """Sum of the counts."""
        return float(self.counts.sum())

    @abstractmethod
    def add(self, member: int, count: float = 1) -> None:
        """Take `member` in, `count` times."""

    @abstractmethod
    def best(self) -> int:
        """The member whose addition gives the lowest loss; at least one must be in."""


def climb(pool: Pool) -> Climb:
    """An empty average of the members of `pool`."""
    return _LogLossClimb(pool) if pool.is_classes else _SquaredErrorClimb(pool)


class _LogLossClimb(Climb):
    """Log loss of an average.

    -ln is convex, so that with the average a of k members, q = (k a + p) / (k + 1) after adding p, and weights w

        loss(q) ≥ loss(a) + (1 - Σ w p / a) / (k + 1):

    one product of matrix and vector bounds all members, and logarithms are taken only of those that can still win.
    """

    def __init__(self, pool: Pool) -> None:
        super().__init__(len(pool.evidence))
        self._evidence, self._weight = pool.evidence, pool.weight
        self._total = np.zeros_like(pool.weight)

    def add(self, member: int, count: float = 1) -> None:
        self.counts[member] += count
        self._total += count * self._evidence[member]

    def best(self) -> int:
        size = self.size
        average = self._total / size
        bounds = (log_loss(average) @ self._weight) + (1 - self._evidence @ (self._weight / average)) / (size + 1)
        order = np.argsort(bounds, kind="stable")
        losses = np.full(len(bounds), np.inf)
        losses[order[:_FIRST]] = self._losses(order[:_FIRST], size)
        lowest = losses.min()
        rest = order[_FIRST:]
        rest = rest[bounds[rest] <= lowest + _SLACK * (1 + abs(lowest))]
        losses[rest] = self._losses(rest, size)
        return int(losses.argmin())

    def _losses(self, added: Codes, size: float) -> Array:
        losses: Array = log_loss((self._total + self._evidence[added]) / (size + 1)) @ self._weight
        return losses


class _SquaredErrorClimb(Climb):
    """Squared error of an average: c' G c / k² for counts c of sum k, with G = E W E' of errors E and weights W."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(len(pool.evidence))
        errors = pool.evidence * np.sqrt(pool.weight)
        self._gram = errors @ errors.T
        self._products = np.zeros(len(errors))  # G c

    def add(self, member: int, count: float = 1) -> None:
        self.counts[member] += count
        self._products += count * self._gram[member]

    def best(self) -> int:
        # c' G c and the new size are the same for every candidate.
        return int((2 * self._products + np.diagonal(self._gram)).argmin())
