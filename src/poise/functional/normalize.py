"""Normalization by batch statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poise.functional.moments import Moments


def normalize_parts(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, *, eps: float, number: int, like: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Each of `number` equal parts of the rows normalized by its own mean and biased variance, in one kernel.

    Args:
        x: Rows.
        weight: Scale, or None.
        bias: Shift, or None.
        eps: Added to the variance, > 0.
        number: Of parts, ≥ 1, that divides N.
        like: Whose dtype, device and axes of `torch.vmap` the statistics have.

    Shape:
        x: (N, C) or (N, C, ...). weight, bias, like: (C,).

    Returns:
        The normalized rows; mean and unbiased variance (number, C) of the parts.

    Example:
        >>> x = torch.tensor([[1.0], [3.0]])
        >>> y, mean, var = normalize_parts(x, None, None, eps=1e-9, number=1, like=torch.ones(1))
        >>> y.flatten(), mean, var
        (tensor([-1.,  1.]), tensor([[2.]]), tensor([[2.]]))
    """
    # With a weight of one for the new batch, what comes to lie here are its moments.
    mean, var = (torch.zeros_like(like).repeat(number) for _ in range(2))
    if number == 1:
        y = nn.functional.batch_norm(x, mean, var, weight, bias, True, 1.0, eps)
    else:
        rows, channels, *places = x.shape
        weight, bias = (None if one is None else one.repeat(number) for one in (weight, bias))
        parts = x.reshape(number, rows // number, channels, *places).transpose(0, 1).flatten(1, 2)
        y = nn.functional.batch_norm(parts, mean, var, weight, bias, True, 1.0, eps)
        y = y.reshape(rows // number, number, channels, *places).transpose(0, 1).reshape(x.shape)
    return y, mean.view(number, -1), var.view(number, -1)


def batch_factors(
    moments: Moments, kept_mean: Tensor, kept_var: Tensor, *, eps: float, renorm: tuple[float, float] | None
) -> tuple[Tensor, Tensor, Tensor]:
    """mean, factor and offset of y = (x - mean) · factor + offset in training, for each group.

    factor = r / sqrt(var + eps) and offset = d, with r = 1 and d = 0 without `renorm`. Groups of fewer than two values
    are normalized by what was kept.

    Args:
        moments: Of the batch.
        kept_mean: Running mean.
        kept_var: Running variance.
        eps: Added to the variances, > 0.
        renorm: Largest r, ≥ 1, whose inverse is the smallest, and largest magnitude of d, ≥ 0; None for none.

    Shape:
        All (G, C).

    Reference: Ioffe, "Batch renormalization", NeurIPS 2017, algorithm 1.
    """
    is_few = moments.number < 2
    mean, var = torch.where(is_few, kept_mean, moments.mean), torch.where(is_few, kept_var, moments.var)
    factor = (var + eps).rsqrt()
    if renorm is None:
        return mean, factor, torch.zeros_like(kept_mean)
    r_max, d_max = renorm
    kept_factor = (kept_var + eps).rsqrt()
    r = (kept_factor / factor.detach()).clamp(1 / r_max, r_max)
    return mean, factor * r, ((mean.detach() - kept_mean) * kept_factor).clamp(-d_max, d_max)


def by_position(x: Tensor) -> Tensor:
    """x (N, C) or (N, C, ...) as (N, C, L), in single precision at least."""
    values = x.flatten(2) if x.ndim > 2 else x.unsqueeze(2)
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
