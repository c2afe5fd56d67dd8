"""Losses of additive outputs: their residuals, their best constant, and the best step along a direction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poise.train import Task

_MAX_STEP = 10.0
_MOST_STEPS = 50


@dataclass(frozen=True, eq=False)
class AdditiveLoss:
    """L(F) = Σ_i w_i ℓ(F_i, t_i) / Σ_i w_i over some rows.

    All losses here belong to a mean: -∂ℓ/∂F ∝ t - m(F), m the sigmoid, the softmax or the identity.

    Args:
        task: Supplies ℓ.
        targets: (N, num_outputs) float64.
        weight: (N,), ≥ 0, not all zero.
    """

    task: Task
    targets: Tensor
    weight: Tensor

    def take(self, rows: Tensor) -> AdditiveLoss:
        """The loss over the rows `rows` alone."""
        return AdditiveLoss(self.task, self.targets[rows], self.weight[rows])

    def value(self, outputs: Tensor) -> float:
        """L."""
        return float((self.task.row_losses(outputs, self.targets) * self.weight).sum() / self.weight.sum())

    def residuals(self, outputs: Tensor) -> Tensor:
        """t - m(F), (N, num_outputs)."""
        return self.targets - self._mean(outputs)

    def base(self) -> Tensor:
        """The outputs (num_outputs,) of the best constant, with half a row more of each class, so that it is finite."""
        mean = (self.targets * self.weight[:, None]).sum(0) / self.weight.sum()
        if self.task.kind == "regression":
            return mean
        num_classes = max(2, self.task.num_outputs)
        mean = (mean * len(self.targets) + 0.5) / (len(self.targets) + 0.5 * num_classes)
        return torch.logit(mean) if self.task.kind == "binary" else torch.log(mean)

    def best_step(self, outputs: Tensor, direction: Tensor) -> float:
        """The s in [0, 10] of the lowest L(F + s f), by Newton's method within a bracket; L is convex in s.

        Args:
            outputs: F, (N, num_outputs).
            direction: f, (N, num_outputs).
        """
        low, high, step = 0.0, _MAX_STEP, 1.0
        for _ in range(_MOST_STEPS):
            slope, bend = self._derivatives(outputs + step * direction, direction)
            low, high = (step, high) if slope < 0 else (low, step)
            newton = step - slope / bend if bend > 0 else float("inf") if slope < 0 else low
            following = newton if low < newton < high else (low + high) / 2
            if abs(following - step) <= 1e-6 * max(1.0, step):
                break
            step = following
        return min(max(step, 0.0), _MAX_STEP)

    def _derivatives(self, outputs: Tensor, direction: Tensor) -> tuple[float, float]:
        """Of Σ_i w_i ℓ(F_i + s f_i) by s, up to one common factor."""
        mean, weight = self._mean(outputs), self.weight
        slope = -((self.targets - mean) * direction).sum(-1)
        if self.task.kind == "regression":
            bend = direction.square().sum(-1)
        elif self.task.kind == "binary":
            bend = (mean * (1 - mean) * direction.square()).sum(-1)
        else:
            bend = (mean * direction.square()).sum(-1) - (mean * direction).sum(-1).square()
        return float((slope * weight).sum()), float((bend * weight).sum())

    def _mean(self, outputs: Tensor) -> Tensor:
        if self.task.kind == "regression":
            return outputs
        return torch.sigmoid(outputs) if self.task.kind == "binary" else torch.softmax(outputs, dim=-1)
