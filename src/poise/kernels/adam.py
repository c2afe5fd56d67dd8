"""Adam's step for many networks at once, each with its own step and learning rate, as a torch operator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from poise.kernels.cpu import _adam as cpu
from poise.kernels.cpu._bound import Run


def reference(
    weights: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, rate: Tensor, root: Tensor,
    factor: Tensor | None, beta1: float, beta2: float, eps: float,
) -> None:  # fmt: skip
    """`poise.train.adam_step` for each row in plain torch, in place.

    m ← β1 m + (1 - β1) g, v ← β2 v + (1 - β2) g², w ← w - rate · factor · m / (sqrt(v) / root + eps).

    Args:
        weights: w (V, P), changed.
        grad: g (V, P).
        exp_avg: m (V, P), changed.
        exp_avg_sq: v (V, P), changed.
        rate: (V,), lr / (1 - β1^t) in step t, counted from 1.
        root: (V,), sqrt(1 - β2^t).
        factor: (P,) of the learning rates, or None for ones.
        beta1: β1.
        beta2: β2.
        eps: > 0.

    Reference: Kingma and Ba, "Adam", ICLR 2015.
    """
    exp_avg.lerp_(grad, 1 - beta1)
    exp_avg_sq.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    denominator = exp_avg_sq.sqrt().div_(root[:, None]).add_(eps)
    rates = rate[:, None] if factor is None else rate[:, None] * factor
    weights.sub_((rates * exp_avg).div_(denominator))


def bound_adam(*inputs: Any) -> list[Run]:
    """What makes a step on the CPU, for tensors that stay where they are."""
    matrices = inputs[:4]
    if inputs[0].dtype in cpu.DTYPES and all(one.is_contiguous() for one in matrices):
        return cpu.bound_adam(*inputs)
    return [lambda: reference(*inputs)]


def _run(*inputs: Any) -> None:
    if inputs[0].device.type != "cpu":
        reference(*inputs)
    else:
        for run in bound_adam(*inputs):
            run()


_MATRICES = "Tensor(a!) weights, Tensor grad, Tensor(b!) exp_avg, Tensor(c!) exp_avg_sq"
adam: Any = torch.library.custom_op(
    "poise::adam",
    _run,
    mutates_args=("weights", "exp_avg", "exp_avg_sq"),
    schema=f"({_MATRICES}, Tensor rate, Tensor root, Tensor? factor, float beta1, float beta2, float eps) -> ()",
)
"""`reference` by the fastest way there is; arguments by position."""
adam.register_fake(lambda *_: None)
