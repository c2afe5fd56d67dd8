"""Methods that act on the update, round the step of any torch optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

import torch
from torch import nn
from torch.optim import Optimizer

from poise._errors import ConfigError
from poise.methods import GradientClip, UpdateMethod, Weight

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def update(
    methods: Sequence[UpdateMethod], moment: str, weights: Mapping[str, Weight], turned: Set[str], optimizer: Optimizer
) -> None:
    """Let `methods` of `moment` change the weights that `optimizer` trains, each by the learning rate of its group.

    Args:
        methods: At the strengths of this step.
        moment: "before" or "after" the optimizer's step.
        weights: Of the model, by name.
        turned: Of `turned_kernels`.
        optimizer: Of the user.
    """
    rates = {id(one): float(group["lr"]) for group in optimizer.param_groups for one in group["params"]}
    # As in torch's optimizers, a parameter without a gradient has no part in the step.
    moving: dict[str, Weight] = {}
    by_rate: dict[float, dict[str, Weight]] = {}
    for name, weight in weights.items():
        lr = rates.get(id(weight.tensor))
        if lr is not None and weight.grad is not None:
            moving[name] = _turn(weight) if name in turned else weight
            by_rate.setdefault(lr, {})[name] = moving[name]
    for method in (one for one in methods if one.moment == moment):
        # The norm of a gradient is one number for all; everything else goes parameter by parameter.
        groups = {0.0: moving} if isinstance(method, GradientClip) else by_rate
        for lr, group in groups.items():
            method.update(group, lr)


def check_optimizer(optimizer: Optimizer, weights: Mapping[str, Weight], inserted: Sequence[str], decays: bool) -> None:
    """Raise unless `optimizer` trains what was inserted, and leaves decay to the recipe.

    Args:
        optimizer: Of the user.
        weights: Of the model, by name.
        inserted: Paths of the layers that were inserted.
        decays: Whether the recipe decays weights.

    Raises:
        ConfigError: If it does not.
    """
    repair = "Make the optimizer of regimen.param_groups(lr=...), after poise.apply."
    trained = {id(one) for group in optimizer.param_groups for one in group["params"]}
    for name, weight in weights.items():
        if id(weight.tensor) not in trained and any(name.startswith(f"{path}.") for path in inserted):
            raise ConfigError(
                f"The optimizer does not train parameter {name!r}, which was inserted.", where="regimen.step",
                repair=repair,
            )  # fmt: skip
    if decays and any(group.get("weight_decay", 0) for group in optimizer.param_groups):
        raise ConfigError(
            "The optimizer has a weight_decay and the recipe has WeightDecay: weights would decay twice.",
            where="regimen.step", repair=repair,
        )  # fmt: skip


def unscale(optimizer: Optimizer, scaler: torch.amp.GradScaler) -> bool:
    """Take the scale out of the gradients; whether they are finite, so that the scaler will not skip the step.

    Args:
        optimizer: Of the user.
        scaler: Likewise.

    Raises:
        ConfigError: If the gradients are unscaled already.
    """
    try:
        scaler.unscale_(optimizer)
    except RuntimeError as error:
        raise ConfigError(
            f"The gradients cannot be unscaled: {error}", where="regimen.step",
            repair="Leave unscaling to regimen.step, and call scaler.update() after each step.",
        ) from error  # fmt: skip
    gradients = [one.grad for group in optimizer.param_groups for one in group["params"] if one.grad is not None]
    return all(bool(one.isfinite().all()) for one in gradients)


def turned_kernels(model: nn.Module) -> set[str]:
    """Names of the kernels that keep their output units on axis 1, unlike what methods expect."""
    found = set()
    for prefix, module in model.named_modules():
        is_turned = isinstance(module, _TRANSPOSED) and module.groups == 1
        # The linear layer of GPT-2 in transformers, which is no class of torch.
        if is_turned or (type(module).__name__ == "Conv1D" and not isinstance(module, nn.Conv1d)):
            found.add(f"{prefix}.weight".lstrip("."))
    return found


def _turn(weight: Weight) -> Weight:
    gradient = weight.grad
    return Weight(weight.tensor.transpose(0, 1), weight.role, None if gradient is None else gradient.transpose(0, 1))
