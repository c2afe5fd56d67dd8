"""What loss methods add, for outputs and targets of a user's own loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from poise._errors import ConfigError
from poise.functional import losses
from poise.methods import Forward, LossMethod, Weights

RowLosses = Callable[[Tensor, Tensor], Tensor]
_SUMS_TO_ONE = 1e-3


def penalty_of(
    methods: Sequence[LossMethod], weights: Weights, outputs: Tensor | None, targets: Tensor | None
) -> Tensor:
    """Σ of what `methods` add to the mean loss of a batch.

    Args:
        methods: At the strengths of this step.
        weights: Of the model.
        outputs: (B, C) or (B, C, ...) or (B, T, C) of the model; None where only weights are penalized.
        targets: Class indices, probabilities or values; None likewise.

    Raises:
        ConfigError: If a method needs outputs and targets and they are not given.
    """
    if outputs is None or targets is None:
        forward = _without_outputs(weights)
    else:
        forward = _with_outputs(weights, outputs, targets)
    parts = [method.penalty(forward) for method in methods]
    return torch.stack(parts).sum() if parts else forward.outputs.new_zeros(())


def _without_outputs(weights: Weights) -> Forward:
    like = next((one.tensor for one in weights.values()), torch.zeros(()))
    nothing = torch.zeros(1, 1, device=like.device, dtype=like.dtype)

    def refuse(_outputs: Tensor, _targets: Tensor) -> Tensor:
        raise ConfigError(
            "A method of this recipe, such as LabelSmoothing, needs what the model returns and the targets.",
            where="regimen.penalty", repair="Call regimen.penalty(outputs, targets).",
        )  # fmt: skip

    return Forward(nothing, nothing, nothing[:, 0], refuse, 1.0, weights)


def _with_outputs(weights: Weights, outputs: Tensor, targets: Tensor) -> Forward:
    if not targets.is_floating_point():
        return _classes(weights, outputs, targets)
    outputs, targets, row_losses, neutral = _task(outputs, targets)
    return Forward(outputs, targets, torch.ones_like(outputs[:, 0]), row_losses, neutral, weights)


def _task(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, RowLosses, float | None]:
    """Rows of outputs and floating targets, and the loss that fits them."""
    if targets.shape != outputs.shape:
        raise ConfigError(
            f"Floating targets must have the shape of the outputs, {tuple(outputs.shape)}, but have "
            f"{tuple(targets.shape)}.", where="regimen.penalty",
        )  # fmt: skip
    num_classes = outputs.shape[1] if outputs.ndim > 1 else 1
    is_probability = num_classes > 1 and bool(((targets.sum(1) - 1).abs() < _SUMS_TO_ONE).all() & (targets >= 0).all())
    if is_probability:
        return _rows(outputs), _rows(targets), losses.cross_entropy, 1 / num_classes
    return outputs.reshape(-1, 1), targets.reshape(-1, 1), losses.squared_error, None


def _classes(weights: Weights, outputs: Tensor, targets: Tensor) -> Forward:
    if outputs.numel() == targets.numel():
        binary, rows = targets.reshape(-1, 1).to(outputs.dtype), outputs.reshape(-1, 1)
        return Forward(rows, binary, torch.ones_like(rows[:, 0]), losses.binary_cross_entropy, 0.5, weights)
    if outputs.ndim == targets.ndim + 1 and outputs.shape[:-1] == targets.shape:
        outputs = outputs.flatten(0, -2)
    elif outputs.ndim == targets.ndim + 1 and (outputs.shape[0], *outputs.shape[2:]) == tuple(targets.shape):
        outputs = _rows(outputs)
    else:
        raise ConfigError(
            f"Class indices of shape {tuple(targets.shape)} do not fit outputs of shape {tuple(outputs.shape)}.",
            where="regimen.penalty",
        )
    targets = targets.reshape(-1)
    # torch's `ignore_index` is negative. Rows get the weight 0, not left out: `torch.vmap` wants shapes that stay.
    known = (targets >= 0).to(outputs.dtype)
    num_classes = outputs.shape[-1]
    codes = functional.one_hot(targets.clamp(min=0).long(), num_classes).to(outputs.dtype)
    weight = known / known.mean().clamp(min=1 / max(1, len(known)))
    return Forward(outputs, codes, weight, losses.cross_entropy, 1 / num_classes, weights)


def _rows(x: Tensor) -> Tensor:
    """(B, C, ...) as rows (N, C)."""
    return x.movedim(1, -1).reshape(-1, x.shape[1])
