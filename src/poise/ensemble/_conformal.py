"""The rule of split conformal prediction: which score leaves as many above it as are allowed to be missed."""

from __future__ import annotations

import math
import warnings

import numpy as np

from poise._checks import Interval
from poise._errors import PoiseWarning
from poise.functional.predictions import Array

OPEN = Interval(0, 1, low_open=True, high_open=True)
_ROUNDING = 1e-9  # 0.93 * 100 is 93.00000000000001 in floating point


def conformal_quantile(scores: Array, coverage: float) -> float:
    """The ⌈(n + 1) · coverage⌉-th smallest of n scores; infinity, with a warning, where there is none.

    Args:
        scores: (n,).
        coverage: In (0, 1).
    """
    rank = math.ceil((len(scores) + 1) * coverage - _ROUNDING)
    if rank <= len(scores):
        return float(np.partition(scores, rank - 1)[rank - 1])
    warnings.warn(
        f"{len(scores)} rows cannot vouch for a coverage of {coverage:g}, so that intervals are infinite and sets hold "
        f"every class. It takes {math.ceil(coverage / (1 - coverage) - _ROUNDING)} rows.",
        PoiseWarning,
        stacklevel=3,
    )
    return math.inf
