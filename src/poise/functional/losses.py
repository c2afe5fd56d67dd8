"""Losses of single rows, linear in the target, so that soft and mixed targets need nothing more."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """log(1 + exp(z)) - t z, in nats.

    Shape:
        logits, targets: (B, 1). Returns (B,).
    """
    return (softplus(logits) - targets * logits).squeeze(-1)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """-Σ_c t_c log softmax(z)_c, in nats.

    Shape:
        logits, targets: (B, C). Returns (B,).
    """
    return -(targets * torch.log_softmax(logits, dim=-1)).sum(-1)


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """(z - t)^2.

    Shape:
        outputs, targets: (B, 1). Returns (B,).
    """
    return (outputs - targets).square().squeeze(-1)
