"""Predictions of finished models and the rows that judge them: checked arrays, and the losses of single rows."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from poise._errors import DataError

Array = NDArray[np.float64]
Codes = NDArray[np.intp]
Loss = Literal["log loss", "squared error"]

TINY = 1e-15  # a probability of zero costs 34.5 nats, not infinitely many
_SUM_ERROR = 1e-3  # what probabilities in half precision may lack


def as_numbers(name: str, values: Any, num_axes: int | tuple[int, ...], *, num_rows: int | None = None) -> Array:
    """`values` as finite float64.

    Args:
        name: Of the argument, for messages.
        values: Anything that numpy takes for an array of real numbers.
        num_axes: How many axes it must have, or may have.
        num_rows: Length of the only axis, where it is known.

    Raises:
        DataError: If it is no such array, or holds NaN or infinity.
    """
    allowed = num_axes if isinstance(num_axes, tuple) else (num_axes,)
    place = f"argument `{name}`"
    try:
        found = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"`{name}` must be an array of numbers: {error}.", where=place) from error
    if found.dtype.kind not in "fiub":
        raise DataError(f"`{name}` must hold real numbers, but its dtype is {found.dtype}.", where=place)
    array = found.astype(np.float64, copy=False)
    if array.ndim not in allowed or array.size == 0:
        listed = " or ".join(str(one) for one in allowed)
        raise DataError(f"`{name}` must have {listed} axes and no empty one, but has shape {array.shape}.", where=place)
    if num_rows is not None and len(array) != num_rows:
        raise DataError(f"`{name}` must have one value for each of {num_rows} rows, but has {len(array)}.", where=place)
    if not np.isfinite(array).all():
        raise DataError(
            f"`{name}` holds NaN or infinity.", where=place, repair="Leave out the members or rows that failed."
        )
    return array


def as_probabilities(name: str, values: Any, num_axes: int = 2) -> Array:
    """`values` (..., C) as probabilities of C ≥ 2 classes in float64, divided by their sums.

    Args:
        name: Of the argument, for messages.
        values: Numbers in [0, 1] whose last axis sums to 1 within 1e-3, as half precision allows.
        num_axes: How many axes there must be.

    Raises:
        DataError: If they are none.
    """
    array, place = as_numbers(name, values, num_axes), f"argument `{name}`"
    if array.shape[-1] < 2:
        raise DataError(
            f"`{name}` must have a column for each class, two or more, but has shape {array.shape}.",
            where=place,
            repair="Of the probability p of the second of two classes, give the columns 1 - p and p.",
        )
    sums = array.sum(axis=-1, keepdims=True)
    wrong = np.abs(sums - 1).max()
    if array.min() < 0 or wrong > _SUM_ERROR:
        found = f"one is {array.min():g}" if array.min() < 0 else f"a row's sum is off by {wrong:.3g}"
        raise DataError(
            f"`{name}` must be probabilities, ≥ 0 and with sum 1 over the classes, but {found}.",
            where=place,
            repair="Logits become probabilities by softmax.",
        )
    normalized: Array = array / sums
    return normalized


def as_codes(name: str, values: Any, num_rows: int, num_classes: int) -> Codes:
    """`values` (N,) as class codes 0 … num_classes - 1.

    Raises:
        DataError: If one is no whole number or out of range, or there are not `num_rows`.
    """
    array = as_numbers(name, values, 1, num_rows=num_rows)
    whole = array.astype(np.intp)
    wrong = np.flatnonzero((whole != array) | (whole < 0) | (whole >= num_classes))
    if len(wrong):
        raise DataError(
            f"`{name}` must hold class codes 0 … {num_classes - 1}, but row {wrong[0]} has {array[wrong[0]]:g}.",
            where=f"argument `{name}`",
        )
    return whole


def as_weights(name: str, values: Any, num_rows: int) -> Array:
    """`values` (N,) divided by their sum; None for equal ones.

    Raises:
        DataError: If one is negative, all are zero, or there are not `num_rows`.
    """
    if values is None:
        return np.full(num_rows, 1 / num_rows)
    array = as_numbers(name, values, 1, num_rows=num_rows)
    if array.min() < 0 or array.max() == 0:
        found = f"one is {array.min():g}" if array.min() < 0 else "all are zero"
        raise DataError(f"`{name}` must be ≥ 0 and not all zero, but {found}.", where=f"argument `{name}`")
    scaled = array / array.max()  # the sum of huge ones is infinite, of tiny ones inexact
    total: Array = scaled / scaled.sum()
    return total


def of_target(values: Array, target: Codes) -> Array:
    """The probability that each row's own class is given, (..., N) of (..., N, C)."""
    return np.take_along_axis(values, np.broadcast_to(target[:, None], (*values.shape[:-1], 1)), axis=-1)[..., 0]


def log_loss(probability: Array) -> Array:
    """-ln p in nats, at most 34.5: p counts as 1e-15 at least."""
    return -np.log(np.maximum(probability, TINY))
