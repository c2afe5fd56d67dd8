"""L1 by proximal steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from poise._checks import Interval
from poise.functional.schedule import Strength, value_at
from poise.methods._bases import UpdateMethod, Weights, strength


@dataclass(frozen=True)
class L1(UpdateMethod):
    """Penalizes strength · Σ |w| over kernels by its proximal step, which gives exact zeros.

    After the optimizer's step, w ← sign(w) · max(|w| - lr · strength, 0). Like decoupled weight decay, the step is
    not scaled by Adam's second moment. It does nothing in eval mode.

    Args:
        strength: ≥ 0, or a schedule. Search: [1e-5, 1e-1], logarithmic.

    Shape:
        Kernels of any shape, in place.

    Example:
        >>> import torch
        >>> from poise.methods import L1, Weight
        >>> w = torch.tensor([[0.5, -0.01]])
        >>> L1(strength=1.0).update({"w": Weight(w, "kernel")}, lr=0.1)
        >>> w
        tensor([[0.4000, -0.0000]])

    Reference: Parikh and Boyd, "Proximal algorithms", Foundations and Trends in Optimization 1, 2014, section 6.5.2.
    """

    moment = "after"
    strength: Strength = strength(1e-3, Interval(0), search=(1e-5, 1e-1))

    @torch.no_grad()
    def update(self, weights: Weights, lr: float) -> None:
        threshold = lr * value_at(self.strength, 0.0)
        for weight in weights.values():
            if weight.role == "kernel":
                w = weight.tensor
                w.copy_(w.sign() * (w.abs() - threshold).clamp(min=0))
