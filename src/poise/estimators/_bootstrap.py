"""Bootstrap intervals of test scores."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from poise._random import Key
from poise.estimators._result import Interval

NUM_RESAMPLES = 1000


def bootstrap(statistic: Callable[[Tensor], Tensor], num_rows: int, key: Key) -> Interval:
    """The statistic over all rows and its 95 % percentile interval over resampled ones.

    Args:
        statistic: Maps row indices (N,) to a number.
        num_rows: N.
        key: Names the resamples; the same key resamples alike, so that models are compared on the same rows.

    Reference: Efron and Tibshirani, "An introduction to the bootstrap", 1993, section 13.3.
    """
    draws = [statistic(key.at(index).integers(num_rows, num_rows)) for index in range(NUM_RESAMPLES)]
    low, high = torch.stack(draws).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(float(statistic(torch.arange(num_rows))), low, high)
