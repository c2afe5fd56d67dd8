"""Max-norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from poise._checks import Interval
from poise.functional.schedule import Strength, value_at
from poise.methods._bases import UpdateMethod, Weights, strength


@dataclass(frozen=True)
class MaxNorm(UpdateMethod):
    """Bounds the norm of the weights that enter each unit: w_c ← w_c · min(1, max_norm / ||w_c||) after each step.

    It does nothing in eval mode.

    Args:
        max_norm: Largest Euclidean norm, > 0, or a schedule. Search: [1, 6].

    Shape:
        Kernels (C, D, ...), in place; the norm is over all axes but the first.

    Example:
        >>> import torch
        >>> from poise.methods import MaxNorm, Weight
        >>> w = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
        >>> MaxNorm(max_norm=1.0).update({"w": Weight(w, "kernel")}, lr=0.1)
        >>> w
        tensor([[0.6000, 0.8000],
                [0.3000, 0.4000]])

    Reference: Srebro, Rennie, Jaakkola, "Maximum-margin matrix factorization", NeurIPS 2004. Srivastava et al.,
    "Dropout", JMLR 15, 2014, section 5.1.
    """

    moment = "after"
    max_norm: Strength = strength(3.0, Interval(0, low_open=True), search=(1.0, 6.0))

    @torch.no_grad()
    def update(self, weights: Weights, lr: float) -> None:
        bound = value_at(self.max_norm, 0.0)
        for weight in weights.values():
            if weight.role == "kernel":
                norms = weight.tensor.flatten(1).norm(dim=1).clamp(min=bound)
                weight.tensor.mul_((bound / norms).reshape(-1, *([1] * (weight.tensor.ndim - 1))))
