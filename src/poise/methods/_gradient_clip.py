"""Gradient clipping."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from poise._checks import Interval
from poise.functional.schedule import Strength, value_at
from poise.methods._bases import UpdateMethod, Weights, strength


@dataclass(frozen=True)
class GradientClip(UpdateMethod):
    """Bounds the norm of the whole gradient, g ← g · min(1, max_norm / ||g||), before the optimizer's step.

    It does nothing in eval mode.

    Args:
        max_norm: Largest Euclidean norm over all parameters, > 0, or a schedule. Search: [0.1, 10], logarithmic.

    Shape:
        Gradients of any shape, in place.

    Example:
        >>> from poise.methods import GradientClip
        >>> GradientClip(max_norm=1.0).moment
        'before'

    Reference: Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks", ICML 2013.
    """

    moment = "before"
    max_norm: Strength = strength(1.0, Interval(0, low_open=True), search=(0.1, 10.0))

    @torch.no_grad()
    def update(self, weights: Weights, lr: float) -> None:
        grads = [one.grad for one in weights.values() if one.grad is not None]
        if grads:
            norm = torch.stack([grad.norm() for grad in grads]).norm()
            bound = value_at(self.max_norm, 0.0)
            factor = bound / norm.clamp(min=bound)
            for grad in grads:
                grad.mul_(factor)
