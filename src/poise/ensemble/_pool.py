"""The predictions of several models for the same rows, as far as the loss of an average depends on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from poise._checks import check_choice
from poise._errors import DataError
from poise.functional.predictions import (
    TINY,
    Array,
    as_codes,
    as_numbers,
    as_probabilities,
    as_weights,
    log_loss,
    of_target,
)

_KINDS = ("binary", "multiclass", "regression")
_LARGEST = 1e150  # errors whose squares are finite


@dataclass(frozen=True, eq=False)
class Pool:
    """Of classes the probability of the row's own class, of values the error.

    Both are linear in the prediction, so that an average of members is an average of rows of `evidence`, and neither
    the classes nor the target are needed any more.

    Args:
        evidence: p of the true class, at least 1e-15, or prediction - target.
        weight: Of the rows, > 0, sum 1.
        is_classes: Which of the two.

    Shape:
        evidence: (M, N). weight: (N,).
    """

    evidence: Array
    weight: Array
    is_classes: bool

    def row_losses(self, evidence: Array) -> Array:
        """-ln p in nats, or the squared error."""
        return log_loss(evidence) if self.is_classes else np.square(evidence)

    def losses(self) -> Array:
        """The loss of each member, (M,)."""
        mean: Array = self.row_losses(self.evidence) @ self.weight
        return mean

    def of(self, members: Any) -> Pool:
        """Some of the members."""
        return Pool(self.evidence[members], self.weight, self.is_classes)

    def rows(self, chosen: Any) -> Pool:
        """The same members on some of the rows, whose weights sum to 1 again."""
        weight = self.weight[chosen]
        return Pool(self.evidence[:, chosen], weight / weight.sum(), self.is_classes)


def make_pool(predictions: Any, target: Any, weight: Any, task_kind: str | None = None) -> Pool:
    """Checked predictions of M members for N rows, without the rows of weight zero.

    Args:
        predictions: (M, N, C) probabilities or (M, N) values.
        target: (N,) class codes or values.
        weight: (N,), ≥ 0; None for equal ones.
        task_kind: "binary", "multiclass" or "regression", if it is to be checked.

    Raises:
        ConfigError: If there is no such kind.
        DataError: If the arrays do not fit each other, or hold what they must not.
    """
    check_choice("task_kind", task_kind, (*_KINDS, None))
    values = as_numbers("predictions", predictions, (2, 3))
    is_classes = values.ndim == 3
    if task_kind is not None and is_classes != (task_kind != "regression"):
        raise DataError(
            f"`predictions` of a {task_kind} task must have the axes "
            f"{'(M, N)' if is_classes else '(M, N, C)'}, but have shape {values.shape}.",
            where="argument `predictions`",
        )
    num_rows = values.shape[1]
    if is_classes:
        values = as_probabilities("predictions", values, 3)
        # Floored before the average, not after it, so that the loss of an average stays convex.
        evidence = np.maximum(of_target(values, as_codes("target", target, num_rows, values.shape[2])), TINY)
    else:
        evidence = _errors(values, as_numbers("target", target, 1, num_rows=num_rows))
    share = as_weights("weight", weight, num_rows)
    pool = Pool(evidence, share, is_classes)
    return pool if (share > 0).all() else pool.rows(share > 0)


def _errors(predictions: Array, target: Array) -> Array:
    # Halves first: their difference is finite whatever the two are.
    halves = predictions / 2 - target / 2
    if np.abs(halves).max() > _LARGEST / 2:
        raise DataError(
            f"`predictions` are further than {_LARGEST:g} from `target`.",
            where="argument `predictions`",
            repair="Leave out the members that diverged.",
        )
    return predictions - target
