"""Temperature scaling: one number between a model and the confidence that it earns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from poise._checks import Interval, check_real
from poise.ensemble._calibration import Calibration, check_rows
from poise.functional.predictions import TINY, Array, as_probabilities, of_target

_MOST = 100.0  # temperatures are between 1 / 100 and 100
_STEPS = 100
_TOLERANCE = 1e-10
_ROUNDING = 1e-14


@dataclass(frozen=True)
class Temperature(Calibration):
    """softmax(ln p / T), which is softmax(z / T) of the logits z.

    One number for all classes and rows: the predicted class stays, the confidence changes, and 100 rows fit it.

    Args:
        value: T, in [0.01, 100]; above 1 for a model that is too sure.

    Shape:
        probabilities: (N, C).

    Raises:
        ConfigError: If `value` is out of its range.

    Example:
        >>> from poise import Temperature
        >>> Temperature(2.0).transform([[0.8, 0.2]]).round(3)
        array([[0.667, 0.333]])
        >>> overconfident = [[0.99, 0.01]] * 100
        >>> Temperature.fit(overconfident, [0] * 80 + [1] * 20).transform(overconfident)[0].round(2)
        array([0.8, 0.2])

    Reference: Guo et al., "On calibration of modern neural networks", ICML 2017.
    """

    value: float

    def __post_init__(self) -> None:
        check_real("value", self.value, Interval(1 / _MOST, _MOST))

    @classmethod
    def fit(cls, probabilities: Any, target: Any, *, weight: Any = None, prior: float = 1.0) -> Temperature:
        """The temperature of the lowest log loss, which is never higher than at 1.

        The loss is convex in 1 / T. A few rows that are all predicted rightly would ask for a temperature of zero;
        `prior` rows whose classes are drawn from the probabilities themselves keep it finite, and pull towards 1.

        Args:
            probabilities: Of C ≥ 2 classes, in [0, 1], each row with sum 1. Logits give the same as their softmax.
            target: Class codes 0 … C - 1.
            weight: Of the rows, ≥ 0, not all zero: a row of weight 2 is the row twice; None for equal ones.
            prior: How many rows the belief in T = 1 is worth, ≥ 0.

        Shape:
            probabilities: (N, C). target, weight: (N,).

        Returns:
            The fitted map.

        Raises:
            ConfigError: If `prior` is below zero.
            DataError: If the arrays do not fit each other, are no probabilities, or hold NaN.
        """
        check_real("prior", prior, Interval(0))
        p, y, w, total = check_rows(probabilities, target, weight)
        logits = np.log(np.maximum(p, TINY))
        # What the logits are worth at the true classes, with `prior` rows of soft targets p.
        aim = (of_target(logits, y) + (p * logits).sum(axis=1) * (prior / total)) @ w / (1 + prior / total)
        return cls(1 / _root(logits, w, float(aim)))

    def transform(self, probabilities: Any) -> Array:
        return _softmax(np.log(np.maximum(as_probabilities("probabilities", probabilities), TINY)) / self.value)


def _softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Array = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _root(logits: Array, weight: Array, aim: float) -> float:
    """The b = 1 / T at which the expected logit Σ_c softmax(b z)_c z_c, which rises with b, is `aim` in the mean.

    That is where the derivative of the loss is zero. Newton steps, halved geometrically where they leave the bracket.
    """
    low, high, b = 1 / _MOST, _MOST, 1.0
    for _ in range(_STEPS):
        p = _softmax(b * logits)
        means = (p * logits).sum(axis=1)
        excess = float(means @ weight) - aim
        if abs(excess) <= _ROUNDING * (1 + abs(aim)):
            break
        slope = float(((p * np.square(logits)).sum(axis=1) - np.square(means)) @ weight)
        low, high = (low, b) if excess > 0 else (b, high)
        step = b - excess / slope if slope > 0 else -1.0
        previous, b = b, step if low <= step <= high else float(np.sqrt(low * high))
        if abs(b - previous) <= _TOLERANCE * b:
            break
    return b
