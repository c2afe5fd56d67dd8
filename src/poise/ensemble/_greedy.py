"""Greedy selection of members from a pool, guarded against luck on the rows that choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poise._checks import Interval, check_integer, check_type
from poise._errors import ConfigError, DataError
from poise._random import Key
from poise.ensemble._paths import Paths, Plan, eligible_members, picks_of
from poise.ensemble._pool import Pool, make_pool
from poise.functional.predictions import Array

_ROUNDING = 1e-9
_CARRIED = 0.25  # of the new steps, how much an earlier run may weigh


@dataclass(frozen=True, eq=False)
class GreedyResult:
    """Which members an ensemble takes, and what that is worth on rows that did not choose.

    Args:
        weights: Of the members, ≥ 0, sum 1. One of them is 1 where averaging did not pay.
        num_steps: How many greedy steps were taken; 0 where the best few, equally, were better.
        losses: Out-of-fold loss after each number of steps: nats, or squared units of the target.
        equal_losses: Out-of-fold loss of the best 1, 2, 4, … and all members, equally weighted.
        loss: Out-of-fold loss of the whole procedure, with its choice among all of these.
        single: The member with the lowest loss on all rows.
        single_loss: Out-of-fold loss of taking the single best member.
        standard_error: Of single_loss - loss, over the rows.
        naive_loss: Loss of `weights` on the rows that chose them; too good to be true.
        counts: How often each path of each bag took each member, for a later run.
        key: What named folds and bags.
        num_rows: How many rows chose.

    Shape:
        weights: (M,). losses: (num_steps given,). counts: (folds + 1, bags, M).
    """

    weights: Array
    num_steps: int
    losses: Array
    equal_losses: dict[int, float]
    loss: float
    single: int
    single_loss: float
    standard_error: float
    naive_loss: float
    counts: Array
    key: Key
    num_rows: int

    @property
    def chosen(self) -> tuple[int, ...]:
        """Members of weight above zero, the heaviest first."""
        order = np.argsort(-self.weights, kind="stable")
        return tuple(int(one) for one in order[self.weights[order] > 0])

    @property
    def is_single(self) -> bool:
        """Whether the best member alone was kept."""
        return len(self.chosen) == 1


def greedy_weights(
    predictions: Any,
    target: Any,
    *,
    weight: Any = None,
    task_kind: str | None = None,
    num_steps: int = 40,
    num_folds: int = 5,
    num_bags: int = 10,
    start: GreedyResult | None = None,
    key: Key = Key(0),  # noqa: B008 - frozen
) -> GreedyResult:
    r"""Weights of an average of models that predicts better than the best of them, or the best of them.

    A path starts with the best members and adds, with replacement, the one that lowers the loss of the average most:

        m_k = argmin_m Σ_i w_i loss((S_i + p_{m,i}) / k, y_i),   S ← S + p_{m_k},

    with the log loss of averaged probabilities or the squared error of averaged values. The weights are the mean over
    bags of m's share of the first k steps; each bag sees half of the rows, 10,000 at most, and where there are many,
    half of the members. Beside the paths stand the equal averages of the best 1, 2, 4, … and all members, which few
    rows cannot lead astray. Rows that were held out (folds) decide between all of these, and for how many steps; the
    best 1 is that member alone. `loss` is measured on each fold while only the other folds decide, so that it can be
    quoted; rows that had no part at all are better still.

    The time is O(folds · bags · steps · M · N): the classes are left behind at the start, and sums are kept.

    Args:
        predictions: Of M ≥ 1 members for the same N ≥ 2 rows, which no member was trained on: probabilities or values.
        target: Class codes, or values.
        weight: Of the rows, ≥ 0, not all zero; None for equal ones.
        task_kind: "binary", "multiclass" or "regression", where the axes of `predictions` are to be checked against it.
        num_steps: Most steps of a path, ≥ 1.
        num_folds: How often rows are held out, ≥ 2; never more than there are rows.
        num_bags: Averaged paths, ≥ 1.
        start: An earlier result for the same rows and settings, whose members are the first of these: its paths go on,
            each on the rows that it has seen, so that what was held out stays held out.
        key: Names folds and bags.

    Shape:
        predictions: (M, N, C) or (M, N). target, weight: (N,).

    Returns:
        The weights, with what they are worth.

    Raises:
        ConfigError: If a setting is out of its range, or `start` is from other rows or settings.
        DataError: If the arrays do not fit each other, are no probabilities, or hold NaN; if fewer than two rows count.

    Example:
        >>> import numpy as np
        >>> from poise.ensemble import greedy_weights
        >>> rng = np.random.default_rng(0)
        >>> target = rng.normal(size=500)
        >>> good, other, bad = (target + std * rng.normal(size=500) for std in (1.0, 1.0, 5.0))
        >>> found = greedy_weights(np.stack([good, other, bad]), target)
        >>> found.weights.round(1), bool(found.loss < 0.6 * found.single_loss)
        (array([0.5, 0.5, 0. ]), True)

    Reference: Caruana et al., "Ensemble selection from libraries of models", ICML 2004. Caruana, Munson and
    Niculescu-Mizil, "Getting the most out of ensemble selection", ICDM 2006.
    """
    check_integer("num_steps", num_steps, Interval(1))
    check_integer("num_folds", num_folds, Interval(2))
    check_integer("num_bags", num_bags, Interval(1))
    check_type("key", key, Key)
    pool = make_pool(predictions, target, weight, task_kind)
    num_members, num_rows = pool.evidence.shape
    if num_rows < 2:
        raise DataError(
            "Only one row counts, so none can be held out.", where="argument `target`", repair="Give two rows at least."
        )
    plan = Plan(num_steps, min(num_folds, num_rows), num_bags, key)
    eligible = eligible_members(num_members, plan)
    starts = _starts(start, plan, num_members, num_rows) * eligible
    folds = (key.stream("folds").permutation(num_rows) % plan.num_folds).numpy()
    # The last paths see all rows.
    picks = [picks_of(pool, folds != fold, starts[fold], eligible, plan, fold) for fold in range(plan.num_folds + 1)]
    return _decide(pool, folds, Paths(starts, np.stack(picks)), key)


def _starts(start: GreedyResult | None, plan: Plan, num_members: int, num_rows: int) -> Array:
    """Counts with which the paths begin, (folds + 1, bags, M)."""
    shape = (plan.num_folds + 1, plan.num_bags, num_members)
    counts = np.zeros(shape)
    if start is None:
        return counts
    check_type("start", start, GreedyResult)
    earlier = start.counts
    if (earlier.shape[:2], start.key, start.num_rows) != (shape[:2], plan.key, num_rows):
        raise ConfigError(
            "`start` must be a result for the same rows, num_folds, num_bags and key.",
            repair="Leave it out to choose from the beginning.",
        )
    if earlier.shape[2] > num_members:
        raise ConfigError(f"`start` has {earlier.shape[2]} members, but `predictions` only {num_members}.")
    sizes = earlier.sum(axis=2, keepdims=True)
    counts[:, :, : earlier.shape[2]] = earlier * np.minimum(1, max(1, _CARRIED * plan.num_steps) / sizes)
    return counts


def _decide(pool: Pool, folds: NDArray[np.intp], paths: Paths, key: Key) -> GreedyResult:
    """Which average, by what was held out."""
    sizes = _sizes(len(pool.evidence))
    held = _held_out(pool, folds, paths, sizes)
    curve = held @ pool.weight
    choice = _lowest(curve)
    num_steps = max(0, choice - len(sizes) + 1)
    loss_rows = _cross_fitted(held, folds, pool.weight)
    loss, single_loss = float(loss_rows @ pool.weight), float(curve[0])
    order = np.argsort(pool.losses(), kind="stable")
    counts = paths.counts(_lowest(curve[len(sizes) :]) + 1)
    if num_steps:
        weights = (counts[-1] / counts[-1].sum(axis=1, keepdims=True)).mean(axis=0)
    else:
        weights = np.zeros(len(order))
        weights[order[: sizes[choice]]] = 1 / sizes[choice]
    gain = held[0] - loss_rows - (single_loss - loss)
    return GreedyResult(
        weights=weights,
        num_steps=num_steps,
        losses=curve[len(sizes) :],
        equal_losses=dict(zip(sizes, curve.tolist(), strict=False)),
        loss=loss,
        single=int(order[0]),
        single_loss=single_loss,
        standard_error=float(np.sqrt(np.sum(np.square(pool.weight * gain)))),
        naive_loss=float(pool.row_losses(weights @ pool.evidence) @ pool.weight),
        counts=counts,
        key=key,
        num_rows=len(folds),
    )


def _lowest(losses: Array) -> int:
    """The first of the lowest, up to rounding: the simplest of averages that are as good."""
    return int((losses <= losses.min() * (1 + _ROUNDING)).argmax())


def _sizes(num_members: int) -> list[int]:
    """1, 2, 4, … and all of them."""
    return [*(2**power for power in range((num_members - 1).bit_length())), num_members]


def _held_out(pool: Pool, folds: NDArray[np.intp], paths: Paths, sizes: list[int]) -> Array:
    """Losses of each row by averages that it had no part in: of the best few equally, then along the paths.

    Shape:
        Returns (sizes + steps, N).
    """
    losses = np.empty((len(sizes) + paths.picks.shape[2], len(folds)))
    for fold in range(len(paths.picks) - 1):
        out = folds == fold
        evidence = pool.evidence[:, out]
        order = np.argsort(pool.rows(~out).losses(), kind="stable")
        equal = np.stack([evidence[order[:size]].mean(axis=0) for size in sizes])
        losses[:, out] = pool.row_losses(np.concatenate([equal, paths.averages(fold, evidence)]))
    return losses


def _cross_fitted(held: Array, folds: NDArray[np.intp], weight: Array) -> Array:
    """Losses of each row by the average that the rows of the other folds decide on."""
    losses = np.empty(len(folds))
    for fold in range(folds.max() + 1):
        out = folds == fold
        losses[out] = held[_lowest(held @ np.where(out, 0, weight)), out]
    return losses
