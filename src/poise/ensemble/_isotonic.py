"""Isotonic regression: a rising function between a class's probability and how often it is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from poise._checks import Interval, check_real, check_type
from poise._errors import ConfigError
from poise.ensemble._calibration import Calibration, check_classes, check_rows
from poise.ensemble._plain_data import check_numbers
from poise.functional.predictions import Array


@dataclass(frozen=True)
class Isotonic(Calibration):
    """A rising step of each class's probability, n f_c(p_c) + p_c over n + 1, divided by the sum over the classes.

    f_c is the rising function, linear between its thresholds, that is nearest to [y = c] in squares. The row that p_c
    adds to the n rows keeps what was possible possible: f_c alone is often exactly 0 or 1. It bends to any rising curve
    and needs rows for that, a thousand or more; fewer are better served by `Temperature`.

    Args:
        thresholds: Of each class, rising, in [0, 1].
        values: f_c at the thresholds, rising, in [0, 1].
        num_rows: n > 0, rows that it was fitted on.

    Shape:
        probabilities: (N, C).

    Raises:
        ConfigError: If thresholds and values do not fit each other, fall, or are out of their range.

    Example:
        >>> from poise import Isotonic
        >>> overconfident = [[0.99, 0.01]] * 100
        >>> Isotonic.fit(overconfident, [0] * 80 + [1] * 20).transform(overconfident)[0].round(2)
        array([0.8, 0.2])

    Reference: Zadrozny and Elkan, "Transforming classifier scores into accurate multiclass probability estimates", KDD
    2002.
    """

    thresholds: tuple[tuple[float, ...], ...]
    values: tuple[tuple[float, ...], ...]
    num_rows: float

    def __post_init__(self) -> None:
        check_real("num_rows", self.num_rows, Interval(0, low_open=True))
        for name in ("thresholds", "values"):
            check_type(name, getattr(self, name), tuple)
            for one in getattr(self, name):
                _check_rising(name, one)
        if len(self.thresholds) < 2 or [len(one) for one in self.thresholds] != [len(one) for one in self.values]:
            raise ConfigError("`thresholds` and `values` must have two classes or more, equally many numbers each.")

    @classmethod
    def fit(cls, probabilities: Any, target: Any, *, weight: Any = None) -> Isotonic:
        """One rising function for each class against the rest.

        Args:
            probabilities: Of C ≥ 2 classes, in [0, 1], each row with sum 1.
            target: Class codes 0 … C - 1. A class without rows becomes improbable.
            weight: Of the rows, ≥ 0, not all zero: a row of weight 2 is the row twice; None for equal ones.

        Shape:
            probabilities: (N, C). target, weight: (N,).

        Returns:
            The fitted map.

        Raises:
            DataError: If the arrays do not fit each other, are no probabilities, or hold NaN.
        """
        from sklearn.isotonic import IsotonicRegression

        p, y, w, total = check_rows(probabilities, target, weight)
        fits = [
            IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(p[:, one], y == one, sample_weight=w)
            for one in range(p.shape[1])
        ]
        thresholds = tuple(tuple(one.X_thresholds_.tolist()) for one in fits)
        return cls(thresholds, tuple(tuple(one.y_thresholds_.tolist()) for one in fits), total)

    def transform(self, probabilities: Any) -> Array:
        p = check_classes(probabilities, len(self.thresholds))
        curves = zip(p.T, self.thresholds, self.values, strict=True)
        fitted = np.stack([np.interp(*curve) for curve in curves], axis=1)
        mixed = self.num_rows * fitted + p
        calibrated: Array = mixed / mixed.sum(axis=1, keepdims=True)
        return calibrated


def _check_rising(name: str, values: Any) -> None:
    check_numbers(name, values)
    if not values or values[0] < 0 or values[-1] > 1 or list(values) != sorted(values):
        raise ConfigError(f"`{name}` must rise within [0, 1], but got {values!r}.")
