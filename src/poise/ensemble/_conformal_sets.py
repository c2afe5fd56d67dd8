"""Sets that hold the class as often as asked, whatever the model: split conformal prediction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from poise._checks import Interval, check_choice, check_integer, check_real
from poise.ensemble._calibration import check_classes
from poise.ensemble._conformal import OPEN, conformal_quantile
from poise.ensemble._plain_data import PlainData
from poise.functional.predictions import Array, as_codes, as_probabilities, of_target

_SETS = ("lac", "aps")
_GRID = 2.0**20


@dataclass(frozen=True)
class ConformalSets(PlainData):
    """The classes whose score is at most a threshold.

    Scores of class c, of a row with probabilities p:

        lac: 1 - p_c                                 the smallest sets on average; may be empty where nothing is likely
        aps: Σ_{j before c} p_j + u p_c              sets that grow with the difficulty of the row

    where classes are ordered by falling probability and u is uniform in [0, 1). The threshold is the
    ⌈(n + 1) · coverage⌉-th smallest score of the true classes of n rows that the model was not trained on. A new row,
    drawn like them, has its class in its set with a probability of at least `coverage`. u is a function of the row's
    probabilities and the seed, so that a row has the same set alone or in company.

    Args:
        threshold: ≥ 0; infinite if there were fewer than coverage / (1 - coverage) rows.
        coverage: In (0, 1).
        num_rows: n ≥ 1.
        num_classes: C ≥ 2.
        method: "lac" or "aps".
        seed: Of u, in [0, 2^64).

    Shape:
        probabilities: (N, C).

    Raises:
        ConfigError: If a number is out of its range.

    Example:
        >>> from poise import ConformalSets
        >>> fitted = ConformalSets.fit([[0.9, 0.1]] * 8 + [[0.6, 0.4]], [0] * 8 + [1], coverage=0.9)
        >>> fitted.predict([[0.95, 0.05], [0.5, 0.5]])
        array([[ True, False],
               [ True,  True]])

    Reference: Sadinle, Lei and Wasserman, "Least ambiguous set-valued classifiers with bounded error levels", Journal
    of the American Statistical Association, 2019. Romano, Sesia and Candès, "Classification with valid and adaptive
    coverage", NeurIPS 2020.
    """

    threshold: float
    coverage: float
    num_rows: int
    num_classes: int
    method: Literal["lac", "aps"]
    seed: int = 0

    def __post_init__(self) -> None:
        if self.threshold != math.inf:
            check_real("threshold", self.threshold, Interval(0))
        check_real("coverage", self.coverage, OPEN)
        check_integer("num_rows", self.num_rows, Interval(1))
        check_integer("num_classes", self.num_classes, Interval(2))
        check_choice("method", self.method, _SETS)
        check_integer("seed", self.seed, Interval(0, 2.0**64, high_open=True))

    @classmethod
    def fit(
        cls,
        probabilities: Any,
        target: Any,
        *,
        coverage: float = 0.9,
        method: Literal["lac", "aps"] = "lac",
        seed: int = 0,
    ) -> ConformalSets:
        """The threshold that rows of their own ask for.

        Args:
            probabilities: Of C ≥ 2 classes, in [0, 1], each row with sum 1.
            target: Class codes 0 … C - 1.
            coverage: In (0, 1).
            method: "lac" or "aps".
            seed: Of the random numbers of "aps".

        Shape:
            probabilities: (N, C). target: (N,).

        Returns:
            The fitted sets; always all classes, with a PoiseWarning, if there are too few rows.

        Raises:
            ConfigError: If a setting is out of its range.
            DataError: If the arrays do not fit each other, are no probabilities, or hold NaN.
        """
        check_real("coverage", coverage, OPEN)
        p = as_probabilities("probabilities", probabilities)
        num_rows, num_classes = p.shape
        everything = cls(math.inf, coverage, num_rows, num_classes, method, seed)
        scores = of_target(everything._scores(p), as_codes("target", target, num_rows, num_classes))
        return cls(conformal_quantile(scores, coverage), coverage, num_rows, num_classes, method, seed)

    def predict(self, probabilities: Any) -> NDArray[np.bool_]:
        """Which classes are in each row's set.

        Args:
            probabilities: Of the same classes as at `fit`.

        Shape:
            probabilities: (N, C). Returns (N, C), boolean.

        Raises:
            DataError: If they are no probabilities of these classes.
        """
        p = check_classes(probabilities, self.num_classes)
        within: NDArray[np.bool_] = self._scores(p) <= self.threshold
        return within

    def _scores(self, p: Array) -> Array:
        if self.method == "lac":
            return 1 - p
        order = np.argsort(-p, axis=1, kind="stable")
        ranked = np.take_along_axis(p, order, axis=1)
        above = ranked.cumsum(axis=1) - ranked
        scores = np.empty_like(p)
        np.put_along_axis(scores, order, above + _uniform_of(p, self.seed)[:, None] * ranked, axis=1)
        return scores


def _uniform_of(p: Array, seed: int) -> Array:
    """A number in [0, 1) for each row: a hash of its probabilities, rounded to 2^-20, and the seed (SplitMix64)."""
    mixed = np.full(len(p), seed, np.uint64)
    for column in np.round(p * _GRID).astype(np.uint64).T:
        mixed = (mixed ^ column) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    uniform: Array = (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return uniform
