"""L2 in the loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poise._checks import Interval
from poise.functional.schedule import Strength, value_at
from poise.methods._bases import Forward, LossMethod, strength


@dataclass(frozen=True)
class L2(LossMethod):
    """Adds strength · Σ w² over kernels to the loss; its gradient is 2 · strength · w.

    Under Adam this is not weight decay: the gradient is divided by its own history. It does nothing in eval mode.

    Args:
        strength: ≥ 0, or a schedule. Search: [1e-6, 1e-2], logarithmic.

    Shape:
        Kernels of any shape; returns a scalar.

    Example:
        >>> from poise.methods import L2
        >>> L2(strength=1e-4).at(0.5)
        L2(strength=0.0001)

    Reference: Krogh and Hertz, "A simple weight decay can improve generalization", NeurIPS 1991.
    """

    strength: Strength = strength(1e-4, Interval(0), search=(1e-6, 1e-2))

    def penalty(self, forward: Forward) -> Tensor:
        squares = [one.tensor.square().sum() for one in forward.weights.values() if one.role == "kernel"]
        return value_at(self.strength, 0.0) * torch.stack(squares or [forward.outputs.new_zeros(())]).sum()
