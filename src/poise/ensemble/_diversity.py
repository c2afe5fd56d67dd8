"""How much the members of an ensemble differ, and what that is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from poise._errors import DataError
from poise.ensemble._pool import make_pool
from poise.functional.predictions import Array, as_numbers, as_probabilities, as_weights


@dataclass(frozen=True, eq=False)
class Diversity:
    """What averaging gains, and how far members are apart.

    Args:
        loss: Of the average: nats, or squared units of the target.
        mean_loss: Mean of the members' own losses, weighted as they are in the average.
        gap: mean_loss - loss ≥ 0: what averaging gains over a member taken at random.
        disagreement: Of each pair: share of the rows with different classes, or mean squared difference of values.
        mutual_information: Of class and member, mean over the rows, in nats; None for regression.

    Shape:
        disagreement: (M, M), symmetric, zero on the diagonal.
    """

    loss: float
    mean_loss: float
    gap: float
    disagreement: Array
    mutual_information: float | None

    @property
    def mean_disagreement(self) -> float:
        """Over all pairs of different members; 0 if there is only one."""
        pairs = len(self.disagreement) * (len(self.disagreement) - 1)
        return float(self.disagreement.sum() / pairs) if pairs else 0.0


def diversity(predictions: Any, target: Any, *, weight: Any = None, member_weights: Any = None) -> Diversity:
    """Loss of an average, of its members, and the difference, which is what their disagreement is worth.

    With the average p̄ = Σ_m a_m p_m of members of weight a_m, row for row

        (p̄ - y)² = Σ_m a_m (p_m - y)² - Σ_m a_m (p_m - p̄)²                 for values,
        -ln p̄_y = Σ_m a_m (-ln p_{m,y}) - gap,   gap ≥ 0 (Jensen)             for classes.

    The mutual information is H(p̄) - Σ_m a_m H(p_m) with H(p) = -Σ_c p_c ln p_c: how much of the uncertainty is about
    which member is right.

    Args:
        predictions: Of M ≥ 1 members for the same N rows: class probabilities or values.
        target: Class codes, or values.
        weight: Of the rows, ≥ 0, not all zero; None for equal ones.
        member_weights: a, ≥ 0, divided by their sum; None for equal ones.

    Shape:
        predictions: (M, N, C) or (M, N). target, weight: (N,). member_weights: (M,).

    Raises:
        DataError: If the arrays do not fit each other, are no probabilities, or hold NaN.

    Example:
        >>> from poise import diversity
        >>> found = diversity([[1.0, 0.0], [3.0, 0.0]], [2.0, 0.0])
        >>> found.mean_loss, found.loss, found.gap, found.mean_disagreement
        (0.5, 0.0, 0.5, 2.0)

    Reference: Krogh and Vedelsby, "Neural network ensembles, cross validation, and active learning", NIPS 1995. Depeweg
    et al., "Decomposition of uncertainty in Bayesian deep learning", ICML 2018.
    """
    pool = make_pool(predictions, target, weight)
    num_members = len(pool.evidence)
    shares = _shares(member_weights, num_members)
    average = shares @ pool.evidence
    loss, mean_loss = float(pool.row_losses(average) @ pool.weight), float(shares @ pool.losses())
    rows = as_weights("weight", weight, np.shape(predictions)[1])
    if not pool.is_classes:
        ambiguity = float(shares @ np.square(pool.evidence - average) @ pool.weight)
        return Diversity(loss, mean_loss, ambiguity, _distances(as_numbers("predictions", predictions, 2), rows), None)
    values = as_probabilities("predictions", predictions, 3)
    information = _entropy(np.tensordot(shares, values, axes=1)) - np.tensordot(shares, _entropy(values), axes=1)
    return Diversity(
        loss, mean_loss, max(0.0, mean_loss - loss), _differences(values, rows), max(0.0, float(information @ rows))
    )


def _shares(member_weights: Any, num_members: int) -> Array:
    if member_weights is not None and np.shape(member_weights) != (num_members,):
        raise DataError(
            f"`member_weights` must have one value for each of {num_members} members, but has shape "
            f"{np.shape(member_weights)}.",
            where="argument `member_weights`",
        )
    return as_weights("member_weights", member_weights, num_members)


def _entropy(values: Array) -> Array:
    """In nats, over the last axis."""
    from scipy.special import entr

    entropies: Array = entr(values).sum(axis=-1)
    return entropies


def _differences(values: Array, weight: Array) -> Array:
    """Weight of the rows in which two members predict different classes, (M, M)."""
    predicted = values.argmax(axis=2)
    agreement = np.zeros((len(values), len(values)))
    for one in range(values.shape[2]):
        hits = (predicted == one).astype(np.float64)
        agreement += (hits * weight) @ hits.T
    # Rid of what rounding leaves below zero and on the diagonal.
    differences: Array = np.maximum(1 - agreement, 0)
    np.fill_diagonal(differences, 0)
    return differences


def _distances(values: Array, weight: Array) -> Array:
    """Mean squared difference of two members, (M, M)."""
    return np.stack([np.square(values - one) @ weight for one in values])
