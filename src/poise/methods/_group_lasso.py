"""Group lasso on the inputs of kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from poise._checks import Interval
from poise.functional.schedule import Strength, value_at
from poise.methods._bases import UpdateMethod, Weights, strength


@dataclass(frozen=True)
class GroupLasso(UpdateMethod):
    """Penalizes strength · Σ_g sqrt(n_g) · ||w_g||, g the n_g weights that leave one input unit, by its proximal step.

    After the optimizer's step, w_g ← w_g · max(1 - lr · strength · sqrt(n_g) / ||w_g||, 0): whole inputs of a layer
    become exactly zero, so features and units can be removed. It does nothing in eval mode.

    Args:
        strength: ≥ 0, or a schedule. Search: [1e-5, 1e-1], logarithmic.

    Shape:
        Kernels (C, D, ...), in place; a group is w[:, d].

    Example:
        >>> import torch
        >>> from poise.methods import GroupLasso, Weight
        >>> w = torch.tensor([[3.0, 0.1], [4.0, 0.1]])
        >>> GroupLasso(strength=1.0).update({"w": Weight(w, "kernel")}, lr=0.5)
        >>> w[:, 1]
        tensor([0., 0.])

    Reference: Yuan and Lin, "Model selection and estimation in regression with grouped variables", JRSS B 68, 2006.
    Scardapane et al., "Group sparse regularization for deep neural networks", Neurocomputing 241, 2017.
    """

    moment = "after"
    strength: Strength = strength(1e-3, Interval(0), search=(1e-5, 1e-1))

    @torch.no_grad()
    def update(self, weights: Weights, lr: float) -> None:
        threshold = lr * value_at(self.strength, 0.0)
        for weight in weights.values():
            if weight.role == "kernel":
                w = weight.tensor
                groups = w.transpose(0, 1).flatten(1)
                norms = groups.norm(dim=1)
                shrink = threshold * math.sqrt(groups.shape[1])
                factor = torch.where(norms > shrink, 1 - shrink / norms.clamp(min=torch.finfo(w.dtype).tiny), 0)
                w.mul_(factor.reshape(1, -1, *([1] * (w.ndim - 2))))
