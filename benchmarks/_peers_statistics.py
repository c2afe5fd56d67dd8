"""What the losses of several systems on several tables and splits say: ranks, wins, ratios, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from poise._random import Key

Array = NDArray[np.float64]
Losses = Mapping[str, Sequence[float]]
"""Of one system: by table, in the order of the splits."""

_RESAMPLES = 4000
_TEST_SHARE = 0.2


class Estimate(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Resamples:
    """Tables drawn with replacement, and of each drawn table its splits: what could as well have been measured.

    Args:
        counts: Number of splits of each table, ≥ 1.
        key: Names the draws.
    """

    tables: NDArray[np.int64]
    splits: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, counts: Sequence[int], key: Key) -> Resamples:
        """Draw for tables with these numbers of splits."""
        number, most = len(counts), max(counts)
        tables = key.stream("tables").integers(number, _RESAMPLES, number).numpy()
        shares = key.stream("splits").uniform(_RESAMPLES, number, most).numpy().astype(np.float64)
        of_table = np.asarray(counts)[tables]
        return cls(tables, (shares * of_table[:, :, None]).astype(np.int64), np.asarray(counts))

    def means(self, values: Sequence[Sequence[float]]) -> Array:
        """Mean over the drawn splits of each drawn table: (resamples, tables)."""
        most = int(self.counts.max())
        padded = np.full((len(values), most), np.nan)
        for index, row in enumerate(values):
            padded[index, : len(row)] = row
        drawn = padded[self.tables[:, :, None], self.splits]
        used = np.arange(most) < self.counts[self.tables][:, :, None]
        return np.where(used, drawn, 0.0).sum(axis=2) / used.sum(axis=2)


def interval(value: float, draws: Array) -> Estimate:
    """The value with the 2.5 % and 97.5 % percentiles of its draws."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(value, float(low), float(high))


class Rank(NamedTuple):
    """A mean rank, and how far it is behind that of one system."""

    mean: Estimate
    behind: Estimate


def mean_ranks(systems: Mapping[str, Losses], key: Key, *, against: str) -> dict[str, Rank]:
    """Mean over tables of the mean over splits of each system's rank, 1 for the lowest loss; equal losses share ranks.

    Args:
        systems: All with the same tables and splits.
        key: Names the resamples, which are the same for all systems.
        against: The system with which the others are compared.
    """
    tables = list(systems[against])
    ranks = [stats.rankdata([losses[table] for losses in systems.values()], axis=0) for table in tables]
    resamples = Resamples.of([len(systems[against][table]) for table in tables], key)
    rows = {name: [of_table[index] for of_table in ranks] for index, name in enumerate(systems)}
    means = {name: float(np.mean([row.mean() for row in of_system])) for name, of_system in rows.items()}
    draws = {name: resamples.means(of_system).mean(axis=1) for name, of_system in rows.items()}
    return {
        name: Rank(
            interval(means[name], draws[name]), interval(means[name] - means[against], draws[name] - draws[against])
        )
        for name in systems
    }


@dataclass(frozen=True)
class Duel:
    """One system against another on the tables and splits that both have.

    Args:
        wins: Share of the tables on which the first has the lower mean loss; a tie is half a win.
        ratio: Geometric mean of the ratios of losses, first over second.
        lost: Tables on which the first has the higher mean loss.
        tables: Number of tables.
    """

    wins: Estimate
    ratio: Estimate
    lost: tuple[str, ...]
    tables: int


def duel(ours: Losses, theirs: Losses, key: Key) -> Duel | None:
    """Compare on common tables and splits, None if there are none; the splits come first to last in both."""
    tables = [table for table in ours if theirs.get(table)]
    if not tables:
        return None
    pairs = {table: list(zip(ours[table], theirs[table], strict=False)) for table in tables}
    differences = [[a - b for a, b in pairs[table]] for table in tables]
    logs = [[math.log(a / b) for a, b in pairs[table]] for table in tables]
    resamples = Resamples.of([len(row) for row in differences], key)
    means = np.array([np.mean(row) for row in differences])
    # Drawing splits as well would only pull the share towards one half.
    wins = interval(float(_wins(means)), _wins(means[resamples.tables]))
    ratio = interval(float(np.mean([np.mean(row) for row in logs])), resamples.means(logs).mean(axis=1))
    lost = tuple(table for table, mean in zip(tables, means, strict=True) if mean > 0)
    return Duel(wins, Estimate(*map(math.exp, ratio)), lost, len(tables))


def _wins(differences: Array) -> Array:
    return np.mean((differences < 0) + 0.5 * (differences == 0), axis=-1)


def paired(differences: Sequence[float]) -> Estimate:
    """Mean difference over random splits of one table, with an interval that allows for the splits sharing rows.

    With J splits of which each tests on a share r of the rows, the variance of the mean is (1/J + r / (1 - r)) s².

    Reference: Nadeau and Bengio, "Inference for the generalization error", Machine Learning 52, 2003, section 3.
    """
    mean, number = float(np.mean(differences)), len(differences)
    if number < 2:
        return Estimate(mean, -math.inf, math.inf)
    scale = math.sqrt(1 / number + _TEST_SHARE / (1 - _TEST_SHARE)) * float(np.std(differences, ddof=1))
    half = float(stats.t.ppf(0.975, number - 1)) * scale
    return Estimate(mean, mean - half, mean + half)


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests of a mean relative difference.

    Args:
        mean: Of the differences, with its 90 % interval, which belongs to two tests at 5 %.
        p_worse: That the mean is at least the margin, if this were so.
        p_better: That it is at most minus the margin, if this were so.
    """

    mean: Estimate
    p_worse: float
    p_better: float

    @property
    def not_inferior(self) -> bool:
        """Whether a loss higher by the margin or more is ruled out at 5 %."""
        return self.p_worse < 0.05

    @property
    def equivalent(self) -> bool:
        """Whether both directions are."""
        return self.not_inferior and self.p_better < 0.05


def equivalence(differences: Mapping[str, Sequence[float]], margin: float) -> Equivalence:
    """TOST over tables: seeds of one table are averaged first, for they share its rows.

    Args:
        differences: By table, one a seed; such as log ratios of losses.
        margin: What would matter, > 0, in the same unit.

    Reference: Schuirmann, "A comparison of the two one-sided tests procedure and the power approach", 1987.
    """
    means = np.array([np.mean(values) for values in differences.values()])
    number, mean = len(means), float(means.mean())
    error = float(np.std(means, ddof=1)) / math.sqrt(number) if number > 1 else math.inf
    error = max(error, 1e-12)
    half = float(stats.t.ppf(0.95, max(number - 1, 1))) * error
    p_worse, p_better = (float(stats.t.cdf((sign * mean - margin) / error, max(number - 1, 1))) for sign in (1, -1))
    return Equivalence(Estimate(mean, mean - half, mean + half), p_worse, p_better)
