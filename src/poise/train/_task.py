"""What is to be predicted: targets, losses, predictions and scores."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from poise.functional.losses import binary_cross_entropy, cross_entropy, squared_error


@dataclass(frozen=True)
class Task(ABC):
    """What is to be predicted.

    Every loss is linear in the target or quadratic around it, and targets are always float of shape (B, num_outputs),
    so that smoothing and mixing are plain arithmetic.
    """

    kind: ClassVar[str]
    loss_name: ClassVar[str]
    score_name: ClassVar[str]

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """Outputs of the network."""

    @property
    def neutral(self) -> float | None:
        """The target that says nothing: 1 / number of classes, or None for regression."""
        return None

    @abstractmethod
    def targets(self, values: Tensor) -> Tensor:
        """Class codes (N,) or scaled values (N,) as float targets (N, num_outputs)."""

    @abstractmethod
    def row_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Losses (N,) of outputs and targets (N, num_outputs)."""

    @abstractmethod
    def predict(self, outputs: Tensor) -> Tensor:
        """Class probabilities (N, number of classes), or values (N,)."""

    @abstractmethod
    def average(self, outputs: Tensor) -> Tensor:
        """Outputs (N, num_outputs) whose prediction is the mean of those of members, outputs (N, K, num_outputs)."""

    @abstractmethod
    def score(self, outputs: Tensor, targets: Tensor, weight: Tensor) -> float:
        """Weighted accuracy, or R²."""


def rows_of_members(outputs: Tensor, targets: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs (N, K, C), targets (N, C) and weight (N,) as N · K rows, whose mean loss is the mean of the members'.

    Outputs (N, C) stay as they are.
    """
    if outputs.ndim == targets.ndim:
        return outputs, targets, weight
    members = outputs.shape[1]
    targets = targets.unsqueeze(1).expand(-1, members, -1)
    return outputs.flatten(0, 1), targets.flatten(0, 1), weight.unsqueeze(1).expand(-1, members).flatten()


def _accuracy(hits: Tensor, weight: Tensor) -> float:
    return float((hits.to(weight.dtype) * weight).sum() / weight.sum())


@dataclass(frozen=True)
class Binary(Task):
    """Two classes by one logit."""

    kind = "binary"
    loss_name = "log loss"
    score_name = "accuracy"

    @property
    def num_outputs(self) -> int:
        return 1

    @property
    def neutral(self) -> float:
        return 0.5

    def targets(self, values: Tensor) -> Tensor:
        return values.unsqueeze(-1)

    def row_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return binary_cross_entropy(outputs, targets)

    def predict(self, outputs: Tensor) -> Tensor:
        return torch.cat((torch.sigmoid(-outputs), torch.sigmoid(outputs)), dim=-1)

    def average(self, outputs: Tensor) -> Tensor:
        # log of the odds of the mean probabilities
        log_yes, log_no = torch.nn.functional.logsigmoid(outputs), torch.nn.functional.logsigmoid(-outputs)
        return log_yes.logsumexp(dim=-2) - log_no.logsumexp(dim=-2)

    def score(self, outputs: Tensor, targets: Tensor, weight: Tensor) -> float:
        return _accuracy(((outputs > 0) == (targets > 0.5)).squeeze(-1), weight)


@dataclass(frozen=True)
class Multiclass(Task):
    """Three classes or more by softmax.

    Args:
        num_classes: ≥ 2.
    """

    kind = "multiclass"
    loss_name = "log loss"
    score_name = "accuracy"
    num_classes: int

    @property
    def num_outputs(self) -> int:
        return self.num_classes

    @property
    def neutral(self) -> float:
        return 1 / self.num_classes

    def targets(self, values: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(values.long(), self.num_classes).to(values.dtype)

    def row_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(outputs, targets)

    def predict(self, outputs: Tensor) -> Tensor:
        return torch.softmax(outputs, dim=-1)

    def average(self, outputs: Tensor) -> Tensor:
        # log of the mean probabilities; a constant that all classes share would change nothing
        return torch.log_softmax(outputs, dim=-1).logsumexp(dim=-2) - math.log(outputs.shape[-2])

    def score(self, outputs: Tensor, targets: Tensor, weight: Tensor) -> float:
        return _accuracy(outputs.argmax(-1) == targets.argmax(-1), weight)


@dataclass(frozen=True)
class Regression(Task):
    """A number, scaled to mean 0 and variance 1 over the training rows."""

    kind = "regression"
    loss_name = "squared error"
    score_name = "R²"

    @property
    def num_outputs(self) -> int:
        return 1

    def targets(self, values: Tensor) -> Tensor:
        return values.unsqueeze(-1)

    def row_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return squared_error(outputs, targets)

    def predict(self, outputs: Tensor) -> Tensor:
        return outputs.squeeze(-1)

    def average(self, outputs: Tensor) -> Tensor:
        return outputs.mean(dim=-2)

    def score(self, outputs: Tensor, targets: Tensor, weight: Tensor) -> float:
        mean = (targets.squeeze(-1) * weight).sum() / weight.sum()
        total = ((targets.squeeze(-1) - mean).square() * weight).sum()
        residual = (self.row_losses(outputs, targets) * weight).sum()
        # A constant target is predicted perfectly or not at all; R² has no better meaning there.
        return float(1 - residual / total) if total > 0 else float(residual == 0)
