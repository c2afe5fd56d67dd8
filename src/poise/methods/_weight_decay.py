"""Decoupled weight decay."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from poise._checks import Interval
from poise.functional.schedule import Strength, value_at
from poise.methods._bases import ROLES, UpdateMethod, Weights, strength, structural


@dataclass(frozen=True)
class WeightDecay(UpdateMethod):
    """Shrinks weights, w ← w - lr · weight_decay · w, just before the optimizer's step, as torch's AdamW does.

    It does nothing in eval mode.

    Args:
        weight_decay: ≥ 0, or a schedule. Search: [1e-4, 1], logarithmic.
        roles: Which parameters decay: "kernel", "bias", "norm", "embedding", "scale".

    Shape:
        Parameters of any shape, in place.

    Example:
        >>> import torch
        >>> from poise.methods import Weight, WeightDecay
        >>> w = torch.ones(1, 1)
        >>> WeightDecay(weight_decay=0.1).update({"w": Weight(w, "kernel")}, lr=1.0)
        >>> w
        tensor([[0.9000]])

    Reference: Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019.
    """

    moment = "before"
    weight_decay: Strength = strength(1e-2, Interval(0), search=(1e-4, 1.0))
    roles: tuple[str, ...] = structural(("kernel",), choices=ROLES)

    @torch.no_grad()
    def update(self, weights: Weights, lr: float) -> None:
        factor = 1 - lr * value_at(self.weight_decay, 0.0)
        for weight in weights.values():
            if weight.role in self.roles:
                weight.tensor.mul_(factor)
