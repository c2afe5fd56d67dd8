"""How good class probabilities are: log loss, Brier score, expected calibration error."""

from __future__ import annotations

from typing import Any

import numpy as np

from poise._checks import Interval, check_integer
from poise.functional.predictions import Array, Codes, as_codes, as_probabilities, as_weights, log_loss, of_target


def nll(probabilities: Any, target: Any, *, weight: Any = None) -> float:
    """Log loss: the negative log-likelihood of the classes, Σ_i w_i (-ln p_{i, y_i}) / Σ_i w_i, in nats.

    A probability of zero counts as 1e-15, which costs 34.5 nats.

    Args:
        probabilities: Of C ≥ 2 classes, in [0, 1], each row with sum 1.
        target: Class codes 0 … C - 1.
        weight: Of the rows, ≥ 0, not all zero; None for equal ones.

    Shape:
        probabilities: (N, C). target, weight: (N,).

    Raises:
        DataError: If the arrays do not fit each other, are no probabilities, or hold NaN.

    Example:
        >>> from poise import nll
        >>> round(nll([[0.5, 0.5], [0.1, 0.9]], [0, 1]), 4)  # (ln 2 - ln 0.9) / 2
        0.3993

    Reference: Good, "Rational decisions", Journal of the Royal Statistical Society B, 1952.
    """
    p, y, w = _checked(probabilities, target, weight)
    return float(log_loss(of_target(p, y)) @ w)


def brier(probabilities: Any, target: Any, *, weight: Any = None) -> float:
    """Brier score: Σ_i w_i Σ_c (p_ic - [y_i = c])² / Σ_i w_i, in [0, 2].

    Args:
        probabilities: Of C ≥ 2 classes, in [0, 1], each row with sum 1.
        target: Class codes 0 … C - 1.
        weight: Of the rows, ≥ 0, not all zero; None for equal ones.

    Shape:
        probabilities: (N, C). target, weight: (N,).

    Raises:
        DataError: If the arrays do not fit each other, are no probabilities, or hold NaN.

    Example:
        >>> from poise import brier
        >>> round(brier([[0.5, 0.5], [0.1, 0.9]], [0, 1]), 4)  # (0.5 + 0.02) / 2
        0.26

    Reference: Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review, 1950.
    """
    p, y, w = _checked(probabilities, target, weight)
    # Σ_c (p_c - [y = c])² = Σ_c p_c² - 2 p_y + 1
    return float((np.square(p).sum(axis=1) - 2 * of_target(p, y) + 1) @ w)


def ece(probabilities: Any, target: Any, *, num_bins: int = 15, weight: Any = None) -> float:
    """Expected calibration error: Σ_b W_b |accuracy_b - confidence_b|, in [0, 1].

    Rows fall into bins ((b - 1) / B, b / B] by their confidence, the probability of the class that is predicted; W_b is
    the share of the weight in bin b. With few rows the error of a perfect model is not zero: about as large as the
    standard error of a bin's accuracy.

    Args:
        probabilities: Of C ≥ 2 classes, in [0, 1], each row with sum 1.
        target: Class codes 0 … C - 1.
        num_bins: B ≥ 1, of equal width.
        weight: Of the rows, ≥ 0, not all zero; None for equal ones.

    Shape:
        probabilities: (N, C). target, weight: (N,).

    Raises:
        ConfigError: If `num_bins` is no integer ≥ 1.
        DataError: If the arrays do not fit each other, are no probabilities, or hold NaN.

    Example:
        >>> from poise import ece
        >>> round(ece([[0.2, 0.8]] * 10, [1] * 7 + [0] * 3), 4)  # sure by 0.8, right in 0.7
        0.1

    Reference: Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", AAAI
    2015. Guo et al., "On calibration of modern neural networks", ICML 2017.
    """
    check_integer("num_bins", num_bins, Interval(1))
    p, y, w = _checked(probabilities, target, weight)
    confidence = p.max(axis=1)
    excess = (p.argmax(axis=1) == y) - confidence
    bins = np.digitize(confidence, np.arange(1, num_bins) / num_bins, right=True)
    return float(np.abs(np.bincount(bins, weights=w * excess)).sum())


def _checked(values: Any, target: Any, weight: Any) -> tuple[Array, Codes, Array]:
    p = as_probabilities("probabilities", values)
    return p, as_codes("target", target, *p.shape), as_weights("weight", weight, len(p))
