"""Looking more than once at differences between networks that share rows, without being fooled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from poise.tuning._null_paths import null_paths, share_that_crosses

_GRID = 401  # points of the density between two looks
_REACH = 8.0  # standard deviations below which nothing is
_HIGHEST = 12.0
_MOST_INFLATION = 4.0
_PRECISION = 2e-3  # of the logarithm of a level


@dataclass(frozen=True)
class Looks:
    """When the differences are looked at, and how they depend on each other.

    The blocks share rows, so their differences are correlated. The mean of J of them has variance (1/J + ratio) s²,
    with s² their sample variance: more blocks narrow an interval, but not below what the rows can say. The means at
    several looks then have independent increments, with 1 / (1/J + ratio) as information, as in any sequential trial.

    Args:
        counts: Blocks at each planned look, ascending, ≥ 2.
        ratio: Test rows over the rows that a network learns from (training and validation), ≥ 0.

    Reference: Nadeau and Bengio, "Inference for the generalization error", Machine Learning 52, 2003.
    """

    counts: tuple[int, ...]
    ratio: float

    def spread(self, differences: NDArray[np.float64]) -> float:
        """Standard error of the mean of `differences`."""
        return math.sqrt((1 / len(differences) + self.ratio) * float(np.var(differences, ddof=1)))

    def critical(self, sizes: Sequence[int], level: float) -> float:
        """Standard errors from the mean to each end of an interval that holds at every look at once.

        Args:
            sizes: Differences at each look so far; the last is now.
            level: Chance that the interval misses the truth at any look, in (0, 1).
        """
        honest = _honest_level(self.counts, self.ratio, level)
        return _bound(tuple(sizes), max(self.counts[-1], sizes[-1]), self.ratio, honest)


def _bound(sizes: tuple[int, ...], last: int, ratio: float, level: float) -> float:
    """The bound of |T| at the look that sees `sizes[-1]` differences of `last`, as if the variance were known."""
    whole = 1 / last + ratio
    fractions = tuple(min(1.0, whole / (1 / size + ratio)) for size in sizes)
    return _t_quantile(nominal_levels(fractions, level / 2)[-1], sizes[-1] - 1)


@lru_cache(maxsize=256)
def _honest_level(counts: tuple[int, ...], ratio: float, level: float) -> float:
    """The level whose bounds are crossed with the probability `level` where the variance is estimated.

    A variance that is estimated anew at each look makes the looks less alike than `nominal_levels` takes them to be, so
    that its bounds, with quantiles of Student's t, would be crossed up to a third too often.
    """
    if len(counts) == 1:
        return level
    from scipy.optimize import brentq

    paths = null_paths(counts, ratio)

    def excess(exponent: float) -> float:
        trial = math.exp(exponent)
        bounds = [_bound(counts[: number + 1], counts[-1], ratio, trial) for number in range(len(counts))]
        return share_that_crosses(paths, np.array(bounds)) - level

    low, high = math.log(level / _MOST_INFLATION), math.log(level)
    return level if excess(high) <= 0 else math.exp(float(brentq(excess, low, high, xtol=_PRECISION)))


def spent(fraction: float, level: float) -> float:
    """The share of `level` that may be used up once `fraction` of the information is in: 2 (1 - Φ(z_{level/2} / √t)).

    Little is spent early, so that a look costs hardly anything at the end.

    Args:
        fraction: t, in (0, 1].
        level: One-sided error, in (0, 1).

    Reference: Lan and DeMets, "Discrete sequential boundaries for clinical trials", Biometrika 70, 1983, with the
        boundary of O'Brien and Fleming, Biometrics 35, 1979.
    """
    from scipy.special import ndtr, ndtri

    return float(2 * ndtr(ndtri(level / 2) / math.sqrt(fraction)))


@lru_cache(maxsize=512)
def nominal_levels(fractions: tuple[float, ...], level: float) -> tuple[float, ...]:
    """One-sided levels at which to test at each look, so that the chance of any false alarm is `level`.

    The standardized sums S(t) of a Brownian motion are looked at when t = fractions; look k has the bound b_k with
    P(S(t_k)/√t_k ≥ b_k, none before) = spent(t_k) - spent(t_{k-1}). The density of the paths that go on is carried from
    look to look on a grid.

    Args:
        fractions: Information at each look over that of the last planned one, ascending, in (0, 1]; equal ones allowed.
        level: One-sided error over all looks, in (0, 1).

    Returns:
        1 - Φ(b_k) for each look.

    Reference: Armitage, McPherson and Rowe, "Repeated significance tests on accumulating data", JRSS A 132, 1969.
    """
    from scipy.special import ndtr

    levels: list[float] = []
    path = _Path(np.zeros(1), np.ones(1), 0.0)
    used = 0.0
    for fraction in fractions:
        if fraction <= path.time:
            levels.append(levels[-1])
            continue
        bound = path.bound(fraction, spent(fraction, level) - used)
        used = spent(fraction, level)
        path = path.after(fraction, bound)
        levels.append(float(ndtr(-bound / math.sqrt(fraction))))
    return tuple(levels)


@dataclass(frozen=True, eq=False)
class _Path:
    """Where the sum is at `time` if it has crossed no bound: points and their probabilities."""

    points: NDArray[np.float64]
    mass: NDArray[np.float64]
    time: float

    def bound(self, time: float, chance: float) -> float:
        """What the sum exceeds at `time` with the probability `chance`."""
        from scipy.optimize import brentq
        from scipy.special import ndtr

        step = math.sqrt(time - self.time)
        top = _HIGHEST * math.sqrt(time)

        def excess(bound: float) -> float:
            return float(self.mass @ ndtr((self.points - bound) / step)) - chance

        # Where rounding is all that is left of a chance, no sum is high enough.
        return top if excess(top) >= 0 else float(brentq(excess, -top, top, xtol=1e-12))

    def after(self, time: float, bound: float) -> _Path:
        """The paths that stay below `bound` at `time`."""
        step = math.sqrt(time - self.time)
        points = np.linspace(-_REACH * math.sqrt(time), bound, _GRID)
        density = np.exp(-0.5 * ((points[:, None] - self.points) / step) ** 2) @ self.mass
        density /= step * math.sqrt(2 * math.pi)
        return _Path(points, density * _simpson(points), time)


def _simpson(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of Simpson's rule on an odd number of equidistant points."""
    weights = np.full(len(points), 2.0)
    weights[1::2] = 4.0
    weights[[0, -1]] = 1.0
    scaled: NDArray[np.float64] = weights * (points[1] - points[0]) / 3
    return scaled


def _t_quantile(level: float, freedom: int) -> float:
    """What Student's t with `freedom` degrees exceeds with the probability `level`."""
    from scipy.special import stdtrit

    return -float(stdtrit(freedom, level))


def log_ratio(
    first: NDArray[np.float64], second: NDArray[np.float64], looks: Looks, *, level: float
) -> tuple[float, float, float]:
    """The ratio mean(first) / mean(second) of paired values, with the ends of its interval.

    The logarithm of the ratio is linearized: block j contributes a_j / mean(a) - b_j / mean(b).

    Args:
        first: a, (J,), > 0.
        second: b, (J,), > 0.
        looks: Supplies how blocks depend on each other.
        level: Chance that the interval misses, at this one look.
    """
    value = math.log(float(first.mean()) / float(second.mean()))
    half = looks.spread(first / first.mean() - second / second.mean()) * _t_quantile(level / 2, len(first) - 1)
    return math.exp(value), math.exp(value - half), math.exp(value + half)


def mean_interval(values: NDArray[np.float64], looks: Looks, *, level: float) -> tuple[float, float, float]:
    """The mean of `values` with the ends of its interval at this one look."""
    mean, half = float(values.mean()), looks.spread(values) * _t_quantile(level / 2, len(values) - 1)
    return mean, mean - half, mean + half
