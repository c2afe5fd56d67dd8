"""Intervals that hold the value as often as asked, whatever the model: split conformal prediction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from poise._checks import Interval, check_integer, check_real, check_type
from poise._errors import ConfigError, DataError
from poise.ensemble._conformal import OPEN, conformal_quantile
from poise.ensemble._plain_data import PlainData
from poise.functional.predictions import Array, as_numbers


@dataclass(frozen=True)
class ConformalIntervals(PlainData):
    """prediction ± radius, or prediction ± radius · scale.

    With the scores s_i = |y_i - prediction_i| / scale_i of n rows that the model was not trained on, the radius is the
    ⌈(n + 1) · coverage⌉-th smallest. A new row, drawn like them, then lies within with a probability of at least
    `coverage`, and of at most coverage + 1 / (n + 1) if scores do not tie. This holds on average, not for each kind of
    row; a scale, such as the standard deviation over an ensemble, makes intervals wide where errors are.

    Args:
        radius: ≥ 0; infinite if there were fewer than coverage / (1 - coverage) rows.
        coverage: In (0, 1).
        num_rows: n ≥ 1.
        is_scaled: Whether there is a scale.

    Shape:
        prediction, scale: (N,).

    Raises:
        ConfigError: If a number is out of its range.

    Example:
        >>> import numpy as np
        >>> from poise import ConformalIntervals
        >>> fitted = ConformalIntervals.fit(np.zeros(9), np.arange(1.0, 10.0), coverage=0.8)
        >>> fitted.radius, *fitted.predict([5.0])
        (8.0, array([-3.]), array([13.]))

    Reference: Papadopoulos et al., "Inductive confidence machines for regression", ECML 2002. Lei et al.,
    "Distribution-free predictive inference for regression", Journal of the American Statistical Association, 2018.
    """

    radius: float
    coverage: float
    num_rows: int
    is_scaled: bool

    def __post_init__(self) -> None:
        if self.radius != math.inf:
            check_real("radius", self.radius, Interval(0))
        check_real("coverage", self.coverage, OPEN)
        check_integer("num_rows", self.num_rows, Interval(1))
        check_type("is_scaled", self.is_scaled, bool)

    @classmethod
    def fit(cls, prediction: Any, target: Any, *, coverage: float = 0.9, scale: Any = None) -> ConformalIntervals:
        """The radius that rows of their own ask for.

        Args:
            prediction: Values.
            target: True values.
            coverage: In (0, 1).
            scale: Spread of each row, > 0; None for the same radius everywhere.

        Shape:
            prediction, target, scale: (N,).

        Returns:
            The fitted intervals; infinite ones, with a PoiseWarning, if there are too few rows.

        Raises:
            ConfigError: If `coverage` is out of its range.
            DataError: If the arrays do not fit each other, hold NaN, or a scale is not above zero.
        """
        check_real("coverage", coverage, OPEN)
        center = as_numbers("prediction", prediction, 1)
        errors = np.abs(center - as_numbers("target", target, 1, num_rows=len(center)))
        if scale is not None:
            errors = errors / _scale(scale, len(center))
        return cls(conformal_quantile(errors, coverage), coverage, len(errors), scale is not None)

    def predict(self, prediction: Any, *, scale: Any = None) -> tuple[Array, Array]:
        """Lower and upper ends.

        Args:
            prediction: Values.
            scale: Spread of each row, > 0, if and only if there was one at `fit`.

        Shape:
            prediction, scale, and both that are returned: (N,).

        Raises:
            ConfigError: If there is a scale here and was none at `fit`, or the other way round.
            DataError: If the arrays do not fit each other, hold NaN, or a scale is not above zero.
        """
        center = as_numbers("prediction", prediction, 1)
        if (scale is not None) != self.is_scaled:
            have = "need" if self.is_scaled else "were fitted without"
            raise ConfigError(
                f"These intervals {have} a `scale`.", repair="Give one to both `fit` and `predict`, or to neither."
            )
        radius = self.radius if scale is None else self.radius * _scale(scale, len(center))
        return center - radius, center + radius


def _scale(values: Any, num_rows: int) -> Array:
    scale = as_numbers("scale", values, 1, num_rows=num_rows)
    if scale.min() <= 0:
        raise DataError(
            f"`scale` must be above zero, but one is {scale.min():g}.",
            where="argument `scale`",
            repair="Add a small part of its mean to it.",
        )
    return scale
