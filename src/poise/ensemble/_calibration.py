"""What maps class probabilities to better ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from poise._errors import DataError
from poise.ensemble._plain_data import PlainData
from poise.functional.predictions import Array, Codes, as_codes, as_probabilities, as_weights


class Calibration(PlainData, ABC):
    """A map from class probabilities to better ones, fitted on rows of their own."""

    @abstractmethod
    def transform(self, probabilities: Any) -> Array:
        """Calibrated probabilities.

        Args:
            probabilities: Of C ≥ 2 classes, in [0, 1], each row with sum 1.

        Shape:
            probabilities, and what is returned: (N, C).

        Raises:
            DataError: If they are no probabilities of these classes.
        """


def check_rows(probabilities: Any, target: Any, weight: Any) -> tuple[Array, Codes, Array, float]:
    """Probabilities (N, C), codes (N,), weights (N,) of sum 1, and the sum that they had: how many rows there are."""
    p = as_probabilities("probabilities", probabilities)
    w = as_weights("weight", weight, len(p))
    total = len(p) if weight is None else np.sum(np.asarray(weight, np.float64))
    return p, as_codes("target", target, *p.shape), w, float(total)


def check_classes(probabilities: Any, num_classes: int) -> Array:
    """Probabilities (N, num_classes).

    Raises:
        DataError: If there are more classes or fewer.
    """
    p = as_probabilities("probabilities", probabilities)
    if p.shape[1] != num_classes:
        raise DataError(
            f"`probabilities` must have the {num_classes} classes of the rows that were fitted, but has {p.shape[1]}.",
            where="argument `probabilities`",
        )
    return p
