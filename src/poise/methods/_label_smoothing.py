"""Label smoothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poise._checks import Interval
from poise._errors import ConfigError
from poise.functional.schedule import Strength, value_at
from poise.methods._bases import Forward, LossMethod, strength


@dataclass(frozen=True)
class LabelSmoothing(LossMethod):
    """Cross-entropy against (1 - s) · target + s / C, s the smoothing and C the number of classes.

    The loss is linear in the target, so this adds s · (loss against 1/C - loss against the target). It does nothing
    in eval mode, where losses are against the true target.

    Args:
        smoothing: In [0, 1), or a schedule. Search: [0, 0.2].

    Shape:
        Outputs and targets (B, C); returns a scalar.

    Raises:
        ConfigError: In training, if the target is a number and not a class.

    Example:
        >>> from poise.methods import LabelSmoothing
        >>> LabelSmoothing(smoothing=0.1)
        LabelSmoothing(smoothing=0.1)

    Reference: Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016.
    """

    smoothing: Strength = strength(0.1, Interval(0, 1, high_open=True), search=(0.0, 0.2))

    def penalty(self, forward: Forward) -> Tensor:
        if forward.neutral is None:
            raise ConfigError("LabelSmoothing needs classes, but the target is a number. Leave it out of the recipe.")
        neutral = torch.full_like(forward.targets, forward.neutral)
        excess = forward.row_losses(forward.outputs, neutral) - forward.row_losses(forward.outputs, forward.targets)
        return value_at(self.smoothing, 0.0) * (excess * forward.weight).mean()
