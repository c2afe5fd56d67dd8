"""Bootstrap intervals of test scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from poise._random import Key
from poise.estimators._result import Interval

Statistic = Callable[[Tensor], Tensor]
"""Maps row indices (N,) to a number."""

_MAX_RESAMPLES = 1000
_MIN_RESAMPLES = 200
_MAX_DRAWS = 20_000_000


def bootstrap(statistics: Sequence[Statistic], num_rows: int, key: Key) -> list[Interval]:
    """Each statistic over all rows, with its 95 % percentile interval over resampled ones.

    Args:
        statistics: All see the same resamples, so that models are compared on the same rows.
        num_rows: N ≥ 1. Up to 20,000 rows are resampled 1000 times, more rows less often, but at least 200 times.
        key: Names the resamples.

    Returns:
        One interval a statistic.

    Reference: Efron and Tibshirani, "An introduction to the bootstrap", 1993, section 13.3.
    """
    num_resamples = max(_MIN_RESAMPLES, min(_MAX_RESAMPLES, _MAX_DRAWS // num_rows))
    draws = torch.empty(num_resamples, len(statistics), dtype=torch.float64)
    for index in range(num_resamples):
        rows = key.at(index).integers(num_rows, num_rows)
        draws[index] = torch.stack([statistic(rows) for statistic in statistics])
    ends = draws.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    every = torch.arange(num_rows)
    return [Interval(float(statistic(every)), *end) for statistic, end in zip(statistics, ends.T.tolist(), strict=True)]
