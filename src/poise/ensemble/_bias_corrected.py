"""What the best of many candidates is worth when the same rows chose it: the winner's curse, taken back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from poise._checks import Interval, check_integer, check_real, check_type
from poise._errors import DataError
from poise._random import Key
from poise.functional.predictions import Array, as_numbers, as_weights

_CHUNK = 4_000_000  # draws that are held at once


@dataclass(frozen=True, eq=False)
class BiasCorrected:
    """A choice, with its loss as measured and as corrected.

    Args:
        chosen: The candidate with the lowest mean loss.
        naive: Its mean loss; too low by the luck that made it win.
        corrected: The loss of choosing in this way.
        low: Lower end of the interval of `corrected`.
        high: Upper end.
        wins: How often each candidate was chosen over the resamples.

    Shape:
        wins: (M,), sum 1.
    """

    chosen: int
    naive: float
    corrected: float
    low: float
    high: float
    wins: Array


def select_bias_corrected(
    losses: Any,
    *,
    weight: Any = None,
    num_resamples: int = 1000,
    coverage: float = 0.95,
    key: Key = Key(0),  # noqa: B008 - frozen
) -> BiasCorrected:
    """The best of M candidates, and its loss without the luck of the draw.

    Rows are drawn with replacement; the candidate with the lowest loss on those drawn is scored on those not drawn
    (about 37 %). The mean over the resamples is the loss of the choice, their percentiles are its interval. Nothing is
    trained again. Choices are made on fewer distinct rows than there are, so that the corrected loss is rather a little
    too high than too low.

    Args:
        losses: Of each candidate on each of the same N ≥ 2 rows, which no candidate was trained on.
        weight: Of the rows, ≥ 0, not all zero; None for equal ones.
        num_resamples: ≥ 10.
        coverage: Of the interval, in (0, 1).
        key: Names the resamples.

    Shape:
        losses: (M, N). weight: (N,).

    Raises:
        ConfigError: If a setting is out of its range.
        DataError: If the arrays do not fit each other or hold NaN, or fewer than two rows count.

    Example:
        >>> import numpy as np
        >>> from poise.ensemble import select_bias_corrected
        >>> losses = np.random.default_rng(0).exponential(size=(50, 150))  # fifty candidates, all of loss 1
        >>> found = select_bias_corrected(losses)
        >>> round(found.naive, 1), round(found.corrected, 1), found.low < 1 < found.high
        (0.8, 1.0, True)

    Reference: Tsamardinos, Greasidou and Borboudakis, "Bootstrapping the out-of-sample predictions for efficient and
    accurate cross-validation", Machine Learning, 2018.
    """
    check_integer("num_resamples", num_resamples, Interval(10))
    check_real("coverage", coverage, Interval(0, 1, low_open=True, high_open=True))
    check_type("key", key, Key)
    array = as_numbers("losses", losses, 2)
    share = as_weights("weight", weight, array.shape[1])
    counts = share > 0
    array, share = array[:, counts], share[counts]
    if len(share) < 2:
        raise DataError(
            "Only one row counts, so none can be left out of a resample.",
            where="argument `losses`",
            repair="Give two rows at least.",
        )
    winners, scores = _resample(array, share, num_resamples, key)
    means = array @ share
    low, high = np.quantile(scores, [(1 - coverage) / 2, (1 + coverage) / 2])
    return BiasCorrected(
        chosen=int(means.argmin()),
        naive=float(means.min()),
        corrected=float(scores.mean()),
        low=float(low),
        high=float(high),
        wins=np.bincount(winners, minlength=len(array)) / len(winners),
    )


def _resample(losses: Array, weight: Array, num_resamples: int, key: Key) -> tuple[Array, Array]:
    """Who won each resample, and its loss on the rows that were not drawn."""
    num_rows = len(weight)
    chunk = max(1, _CHUNK // num_rows)
    winners, scores = [], []
    for first in range(0, num_resamples, chunk):
        steps = range(first, min(first + chunk, num_resamples))
        drawn = np.stack([_counts(num_rows, key.at(step)) for step in steps])
        won = ((drawn * weight) @ losses.T).argmin(axis=1)  # the sum of weights is the same for all candidates
        left = (drawn == 0) * weight
        winners.append(won)
        scores.append((left * losses[won]).sum(axis=1) / left.sum(axis=1))
    return np.concatenate(winners), np.concatenate(scores)


def _counts(num_rows: int, key: Key) -> Array:
    """How often each row is drawn; not all of them are."""
    counts = np.bincount(key.integers(num_rows, num_rows).numpy(), minlength=num_rows)
    attempt = 0
    while counts.all():  # seldom but with two or three rows
        attempt += 1
        again = key.stream("again", attempt)
        counts = np.bincount(again.integers(num_rows, num_rows).numpy(), minlength=num_rows)
    return counts.astype(np.float64)
