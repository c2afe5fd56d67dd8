"""Adam's step on the rows of a matrix."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from poise.recipe import AdamW


@torch.no_grad()
def stacked_adam_step(
    weights: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    *,
    steps: NDArray[np.int64],
    lr: NDArray[np.float64],
    lr_factor: Tensor | None,
    config: AdamW,
) -> None:
    """`poise.train.adam_step` for each row, in the same order of operations; each has its own step and learning rate.

    Args:
        weights: (V, P), changed in place.
        grad: (V, P).
        exp_avg: (V, P), changed in place.
        exp_avg_sq: (V, P), changed in place.
        steps: (V,), counted from 1.
        lr: (V,).
        lr_factor: (P,), or None for ones.
        config: Supplies β1, β2 and eps.
    """
    rate = weights.new_tensor(lr / (1 - config.beta1**steps))[:, None]
    root = weights.new_tensor(np.sqrt(1 - config.beta2**steps))[:, None]
    exp_avg.lerp_(grad, 1 - config.beta1)
    exp_avg_sq.mul_(config.beta2).addcmul_(grad, grad, value=1 - config.beta2)
    denominator = exp_avg_sq.sqrt().div_(root).add_(config.eps)
    rate = rate if lr_factor is None else rate * lr_factor
    weights.sub_((rate * exp_avg).div_(denominator))
