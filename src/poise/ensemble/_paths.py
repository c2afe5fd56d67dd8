"""The paths of greedy selection: for each bag of rows and members, who is taken step by step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from poise._random import Key
from poise.ensemble._climb import climb
from poise.ensemble._pool import Pool
from poise.functional.predictions import Array

_NUM_SORTED = 5  # the best members that a path may begin with (Caruana et al. 2004, section 2.2)
_ROWS, _MOST_ROWS = 0.5, 10_000  # what each bag sees: half of the rows; more than that tell it nothing new
_FEW, _MEMBERS = 8, 0.5  # of the members, what each bag sees: half, but all where there are no more than a few


class Plan(NamedTuple):
    """How paths are to be made."""

    num_steps: int
    num_folds: int
    num_bags: int
    key: Key


class Paths(NamedTuple):
    """All paths: what they began with, (folds + 1, bags, M), and took, (folds + 1, bags, steps)."""

    starts: Array
    picks: NDArray[np.intp]

    def averages(self, fold: int, evidence: Array) -> Array:
        """Evidence of the mean over the bags after each step, (steps, N)."""
        steps = np.arange(1, self.picks.shape[2] + 1)[:, None]
        mean = np.zeros((len(steps), evidence.shape[1]))
        for start, picks in zip(self.starts[fold], self.picks[fold], strict=True):
            sums = evidence[picks].cumsum(axis=0)
            sums += start @ evidence
            sums /= start.sum() + steps
            mean += sums
        return mean / len(self.starts[fold])

    def counts(self, num_steps: int) -> Array:
        """How often each member was taken, (folds + 1, bags, M)."""
        members = np.arange(self.starts.shape[2])
        taken = self.picks[:, :, :num_steps, None] == members
        counts: Array = self.starts + taken.sum(axis=2)
        return counts


def eligible_members(num_members: int, plan: Plan) -> NDArray[np.bool_]:
    """Which members each bag may take; a member's draws do not depend on how many others there are."""
    # One bag is no bag: it sees all there is.
    fraction = 1.0 if plan.num_bags == 1 else max(_MEMBERS, min(1.0, _FEW / num_members))
    key = plan.key.stream("members")
    draws = np.stack([key.at(member).uniform(plan.num_bags).numpy() for member in range(num_members)], axis=1)
    # Whatever a bag draws, it may take one.
    eligible: NDArray[np.bool_] = draws <= np.maximum(fraction, draws.min(axis=1, keepdims=True))
    return eligible


def picks_of(
    pool: Pool,
    seen: NDArray[np.bool_],
    starts: Array,
    eligible: NDArray[np.bool_],
    plan: Plan,
    fold: int,
) -> NDArray[np.intp]:
    """The members that each bag takes, step by step, (bags, steps)."""
    rows = np.flatnonzero(seen)
    num_taken = max(1, min(round(_ROWS * len(rows)), _MOST_ROWS))
    picks = np.empty((plan.num_bags, plan.num_steps), np.intp)
    for bag in range(plan.num_bags):
        drawn = plan.key.stream("rows", fold, bag).permutation(len(rows))[:num_taken].numpy()
        taken = rows if plan.num_bags == 1 else rows[np.sort(drawn)]
        allowed = np.flatnonzero(eligible[bag])
        part = pool.of(allowed).rows(taken)
        picks[bag] = allowed[_path(part, starts[bag, allowed], plan.num_steps)]
    return picks


def _path(pool: Pool, start: Array, num_steps: int) -> list[int]:
    """The members that are taken, step by step."""
    growing = climb(pool)
    for carried in np.flatnonzero(start):
        growing.add(int(carried), start[carried])
    picks = [] if growing.size else _sorted_start(pool, min(_NUM_SORTED, num_steps))
    for member in picks:
        growing.add(member)
    while len(picks) < num_steps:
        picks.append(growing.best())
        growing.add(picks[-1])
    return picks


def _sorted_start(pool: Pool, most: int) -> list[int]:
    """The best members, as many as make the best average."""
    order = np.argsort(pool.losses(), kind="stable")[:most]
    averages = pool.evidence[order].cumsum(axis=0) / np.arange(1, len(order) + 1)[:, None]
    losses = pool.row_losses(averages) @ pool.weight
    return [int(one) for one in order[: losses.argmin() + 1]]
