"""Mean and variance per channel of rows that are masked, grouped, spread over ranks, or come in parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Total = Callable[[Tensor], Tensor]
"""The sum of a tensor over all who hold a part of the batch."""


class Moments(NamedTuple):
    """Of G groups: number of values per channel (G, 1), mean (G, C), and biased variance (G, C)."""

    number: Tensor
    mean: Tensor
    var: Tensor


def own_total(part: Tensor) -> Tensor:
    """The sum over all who hold a part, where nobody else does."""
    return part


def moments_of(
    x: Tensor, *, mask: Tensor | None = None, labels: Tensor | None = None, num_groups: int = 1,
    total: Total = own_total,
) -> Moments:  # fmt: skip
    """mean_g = Σ x / n_g and var_g = Σ (x - mean_g)² / n_g over the n_g values of group g; zeros where there are none.

    Two passes, so that a mean far from zero costs no digits. Differentiable.

    Args:
        x: Values.
        mask: Which values count; None for all.
        labels: The group of each row, in [0, G); None for one group.
        num_groups: G.
        total: Sums over all who hold rows of the same batch.

    Shape:
        x: (N, C, L). mask: (N, 1, L) bool. labels: (N,).

    Example:
        >>> x = torch.tensor([[[1.0, 3.0, 9.0]]])
        >>> mask = torch.tensor([[[True, True, False]]])
        >>> tuple(part.item() for part in moments_of(x, mask=mask))
        (2.0, 2.0, 1.0)
    """
    num_rows, channels, length = x.shape

    def by_group(values: Tensor) -> Tensor:
        if labels is None:
            return values.sum(0, keepdim=True)
        return values.new_zeros(num_groups, values.shape[1]).index_add(0, labels, values)

    values = x if mask is None else torch.where(mask, x, 0)
    numbers = x.new_full((num_rows, 1), length) if mask is None else mask.sum(2).to(x.dtype)
    sums = total(torch.cat([by_group(values.sum(2)), by_group(numbers)], dim=1))
    number = sums[:, channels:]
    mean = sums[:, :channels] / number.clamp(min=1)
    centered = values - rows_of(mean, labels)
    if mask is not None:
        centered = torch.where(mask, centered, 0)
    return Moments(number, mean, total(by_group(centered.square().sum(2))) / number.clamp(min=1))


def rows_of(groups: Tensor, labels: Tensor | None) -> Tensor:
    """(G, C) of groups as (N, C, 1) of rows, or (1, C, 1) for the only group."""
    return (groups if labels is None else groups[labels]).unsqueeze(2)


def merge(one: Moments, other: Moments) -> Moments:
    """Of the values of both, by the law of total variance in float64.

    var = (n₁ var₁ + n₂ var₂) / n + n₁ n₂ / n² · (mean₁ - mean₂)², n = n₁ + n₂.

    Args:
        one: n₁, mean₁, var₁.
        other: n₂, mean₂, var₂.

    Example:
        >>> two, four = (Moments(*torch.tensor([[[1.0]], [[value]], [[0.0]]])) for value in (2.0, 4.0))
        >>> tuple(part.item() for part in merge(two, four))
        (2.0, 3.0, 1.0)

    Reference: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    """
    (n1, mean1, var1), (n2, mean2, var2) = ([part.double() for part in each] for each in (one, other))
    number = n1 + n2
    share1, share2 = (part / number.clamp(min=1) for part in (n1, n2))
    shift = mean2 - mean1
    return Moments(number, mean1 + share2 * shift, share1 * var1 + share2 * var2 + share1 * share2 * shift.square())


def kept_variance(moments: Moments, *, unbiased: bool) -> Tensor:
    """The variance (G, C) that running statistics take over: times n / (n - 1) if `unbiased`."""
    number, _, var = moments
    return var * (number / (number - 1).clamp(min=1)) if unbiased else var


def weight_of_new(num_batches: Tensor, momentum: float | None, *, debias: bool) -> float | Tensor:
    """Of the latest of t batches in a running average: m, or m / (1 - (1 - m)^t) if `debias`, or 1 / t for no m.

    With the second, the average after t batches is Σ_s (1 - m)^(t-s) b_s / Σ_s (1 - m)^(t-s): what it began with has
    no weight.

    Args:
        num_batches: t; zeros count as ones.
        momentum: m, in (0, 1] for `debias`.
        debias: As above.

    Example:
        >>> weight_of_new(torch.tensor([1, 2]), 0.5, debias=True)
        tensor([1.0000, 0.6667], dtype=torch.float64)

    Reference: Kingma and Ba, "Adam", ICLR 2015, section 3.
    """
    if momentum is not None and not debias:
        return momentum
    number = num_batches.clamp(min=1).double()
    weight: Tensor = 1 / number if momentum is None else momentum / (1 - (1 - momentum) ** number)
    return weight


def ghost_sizes(num_rows: int, ghost_size: int, *, fewest: int = 1) -> list[tuple[int, int]]:
    """How `num_rows` are dealt into max(1, num_rows // ghost_size) ghosts whose sizes differ by at most one.

    Args:
        num_rows: N, ≥ 1.
        ghost_size: Rows of a ghost, ≥ 1.
        fewest: Rows that a ghost has at least, where there are as many.

    Returns:
        (number of ghosts, rows of each) of the longer ones, which come first, and of the others.

    Example:
        >>> ghost_sizes(13, 4), ghost_sizes(12, 4)
        ([(1, 5), (2, 4)], [(3, 4)])
    """
    number = max(1, min(num_rows // ghost_size, num_rows // fewest))
    size, rest = divmod(num_rows, number)
    return [one for one in ((rest, size + 1), (number - rest, size)) if one[0]]
