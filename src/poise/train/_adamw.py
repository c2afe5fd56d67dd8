"""Adam's step on one flat vector."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from poise.recipe import AdamW


@torch.no_grad()
def adam_step(
    weights: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, *, step: int, lr: float | Tensor, config: AdamW
) -> None:
    """One step of Adam in place, in torch's order of operations; decay is not part of it.

    m ← β1 m + (1 - β1) g, v ← β2 v + (1 - β2) g², w ← w - lr · (m / (1 - β1^t)) / (sqrt(v / (1 - β2^t)) + eps).

    Args:
        weights: Flat vector w, changed in place.
        grad: Flat vector g.
        exp_avg: Flat vector m, changed in place.
        exp_avg_sq: Flat vector v, changed in place.
        step: t, counted from 1.
        lr: A number, or a vector with one for each weight.
        config: Supplies β1, β2 and eps.

    Reference: Kingma and Ba, "Adam", ICLR 2015.
    """
    exp_avg.lerp_(grad, 1 - config.beta1)
    exp_avg_sq.mul_(config.beta2).addcmul_(grad, grad, value=1 - config.beta2)
    denominator = exp_avg_sq.sqrt().div_(math.sqrt(1 - config.beta2**step)).add_(config.eps)
    rate = lr / (1 - config.beta1**step)
    if isinstance(rate, Tensor):
        weights.sub_(rate * exp_avg / denominator)
    else:
        weights.addcdiv_(exp_avg, denominator, value=-rate)
