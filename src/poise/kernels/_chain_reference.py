"""Dropout, and normalization + nonlinearity + dropout, for V variants side by side, in plain torch.

The truth that the kernels of `cpu` and `cuda` are held against, and what differentiates them twice. Every tensor has a
leading axis of variants; what a variant gets depends on nothing but its own entries.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from poise.kernels.reference import keep_mask

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "relu": functional.relu,
    "leaky_relu": functional.leaky_relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "selu": functional.selu,
    "tanh": torch.tanh,
    "mish": functional.mish,
}


def dropout(x: Tensor, key: Tensor, step: Tensor, p: Tensor, on: Tensor) -> Tensor:
    """y = x · m, m the mask `keep_mask(key, step, ·, p)` of each variant, or x where a variant is not `on`.

    Args:
        x: (V, ...), any float dtype.
        key: int64 of shape (V,): 64-bit seeds in two's complement.
        step: int64 of shape (V,).
        p: (V,), drop probabilities in [0, 1).
        on: bool of shape (V,).
    """
    return x * masks(x, key, step, p, on)


def norm_act_dropout(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, rstd: Tensor | None, key: Tensor,
    step: Tensor, p: Tensor, eps: Tensor, on: Tensor, norm: str, activation: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """y = dropout(act((x - mean) · rstd · weight + bias)), rstd = 1 / sqrt(var + eps), var the biased variance.

    Args:
        x: (V, N, C), any float dtype.
        weight: (V, C), or None for ones.
        bias: (V, C), or None for zeros.
        mean: (V, C), where the statistics of a batch norm are given and constant; otherwise None.
        rstd: (V, C) with `mean`, otherwise None.
        key: As for `dropout`.
        step: As for `dropout`.
        p: As for `dropout`. Element e of a variant's mask is row e // C, column e % C.
        eps: (V,), added to the variance, > 0.
        on: As for `dropout`.
        norm: "batch" (statistics over N), "layer" (over C) or "none" (mean 0, rstd 1).
        activation: A key of `ACTIVATIONS`.

    Returns:
        y like x, and the mean and rstd that were used, without gradients: (V, C) for "batch", (V, N) for "layer",
        (V, 0) for "none".
    """
    y, mean, rstd = norm_act(x, weight, bias, mean, rstd, eps, norm, activation)
    return dropout(y, key, step, p, on), mean, rstd


def norm_act(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, rstd: Tensor | None, eps: Tensor,
    norm: str, activation: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """`norm_act_dropout` without the dropout."""
    z = x
    if norm == "none":
        mean, rstd = x.new_empty(len(x), 0), x.new_empty(len(x), 0)
    else:
        axis = 1 if norm == "batch" else 2
        if mean is None or rstd is None:
            mean, rstd = moments(x, eps, axis)
        z = (x - mean.unsqueeze(axis)) * rstd.unsqueeze(axis)
    z = z if weight is None else z * weight[:, None]
    z = z if bias is None else z + bias[:, None]
    return ACTIVATIONS[activation](z).to(x.dtype), mean.detach(), rstd.detach()


def moments(x: Tensor, eps: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Mean and 1 / sqrt(biased variance + eps) over `axis`."""
    mean = x.mean(axis)
    var = (x - mean.unsqueeze(axis)).square().mean(axis)
    return mean, (var + eps[:, None].to(x)).rsqrt()


def masks(x: Tensor, key: Tensor, step: Tensor, p: Tensor, on: Tensor) -> Tensor:
    """The masks of all variants, like x: ones where a variant is not `on`."""
    num = x[0].numel() if len(x) else 0
    settings = zip(key.tolist(), step.tolist(), p.tolist(), on.tolist(), strict=True)
    drawn = [keep_mask(k, s, num, q if active else 0.0) for k, s, q, active in settings]
    return torch.stack(drawn).reshape(x.shape).to(x) if drawn else torch.ones_like(x)
