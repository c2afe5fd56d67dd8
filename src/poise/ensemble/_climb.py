"""Greedy growth of an average: which member, added once more, lowers its loss most."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from poise.ensemble._pool import Pool
from poise.functional.predictions import Array, Codes, log_loss

_FIRST = 2
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

    Adding p to an average a of k members gives a (1 + t) with t = (p / a - 1) / (k + 1). For every t > -1

        ln(1 + t) ≤ t    and    ln(1 + t) ≤ t - t² / 2 + t³ / 3,

    whose means over the rows are products of matrices of powers of p with a vector. They bound the loss of every
    member from below, and logarithms are taken only of those that can still win.
    """

    def __init__(self, pool: Pool) -> None:
        super().__init__(len(pool.evidence))
        self._evidence, self._weight = pool.evidence, pool.weight
        self._squares = pool.evidence**2
        self._cubes = self._squares * pool.evidence
        self._total = np.zeros_like(pool.weight)

    def add(self, member: int, count: float = 1) -> None:
        self.counts[member] += count
        self._total += count * self._evidence[member]

    def best(self) -> int:
        bounds = self._bounds()
        order = np.argsort(bounds, kind="stable")
        losses = np.full(len(bounds), np.inf)
        losses[order[:_FIRST]] = self._losses(order[:_FIRST])
        lowest = losses.min()
        rest = order[_FIRST:]
        rest = rest[bounds[rest] <= lowest + _SLACK * (1 + abs(lowest))]
        if len(rest):
            losses[rest] = self._losses(rest)
        return int(losses.argmin())

    def _bounds(self) -> Array:
        """What each member's loss is at least."""
        average = self._total / self.size
        share = self._weight / average
        first = self._evidence @ share  # means of p / a, its square and its cube
        second = self._squares @ (share / average)
        third = self._cubes @ (share / average**2)
        step = 1 / (self.size + 1)
        linear = step * (first - 1)
        cubic = linear - step**2 * (second - 2 * first + 1) / 2 + step**3 * (third - 3 * second + 3 * first - 1) / 3
        bounds: Array = log_loss(average) @ self._weight - np.minimum(linear, cubic)
        return bounds

    def _losses(self, added: Codes) -> Array:
        averages = self._evidence[added]
        averages += self._total
        averages /= self.size + 1
        losses: Array = log_loss(averages) @ self._weight
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
