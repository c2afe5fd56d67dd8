"""What modules, and plans, must have in common to lie in one stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import nn

from poise._errors import ConfigError
from poise.methods import METHODS, AverageMethod, BatchMethod, LabelSmoothing, Method, NetworkMethod, StopMethod
from poise.nn import Stochastic
from poise.nn._stochastic import Drawn
from poise.train import Plan

DTYPES = (torch.float32, torch.float64)
# torch's own dropout draws from a global generator, so no variant could be trained again by itself.
_UNNAMED = (nn.modules.dropout._DropoutNd, nn.RReLU)


def signature(module: nn.Module) -> tuple[Any, ...]:
    """Equal for modules that can be stacked: the same layers and settings but for strengths, tensors of equal shape."""
    layers = tuple(
        (name, type(layer), "" if isinstance(layer, Drawn) else layer.extra_repr(), layer.training)
        for name, layer in module.named_modules()
    )
    tensors = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return layers, tuple((name, tuple(tensor.shape), tensor.dtype) for name, tensor in tensors)


def cannot_stack(module: nn.Module) -> str:
    """The layer of `module` whose random numbers cannot be drawn for a stack, by name; "" if there is none."""
    for name, layer in module.named_modules():
        if isinstance(layer, _UNNAMED) or (isinstance(layer, Stochastic) and not isinstance(layer, Drawn)):
            return f"layer {name or 'itself'} ({type(layer).__name__})"
    return ""


def check_stackable(modules: Sequence[nn.Module]) -> None:
    """Raise ConfigError if there are no modules, or they cannot lie in one stack."""
    if not modules:
        raise ConfigError("`modules` must hold at least one module, but it is empty.")
    reason = cannot_stack(modules[0])
    if reason:
        raise ConfigError(
            f"Random numbers of a stack must have names, but those of {reason} have none.",
            repair="Use the dropout layers of poise.nn.",
        )
    own = signature(modules[0])
    for index, module in enumerate(modules):
        if signature(module) != own:
            raise ConfigError(f"`modules` must have one structure, but module {index} differs from module 0.")
    dtypes = {parameter.dtype for parameter in modules[0].parameters()}
    if len(dtypes) > 1:
        raise ConfigError(f"`modules` must have parameters of one dtype, but they have {sorted(map(str, dtypes))}.")


def unsupported(plan: Plan, device: torch.device) -> str:
    """The device, dtype or method of `plan` that cannot be stacked, by name; "" if all can.

    Methods that change batches, average or stop act on each variant by itself, so any of them will do. A method that
    derives from a known one is unknown: it may have changed anything.
    """
    if device.type == "cuda" and not torch.cuda.is_available():
        return f"device {device}"
    if plan.dtype not in DTYPES:
        return f"dtype {str(plan.dtype).removeprefix('torch.')}"
    for method in plan.recipe.methods:
        if isinstance(method, BatchMethod | AverageMethod | StopMethod):
            continue
        if METHODS.get(type(method).__name__) is not type(method):
            return f"method {type(method).__name__}"
        if isinstance(method, LabelSmoothing) and plan.task.neutral is None:
            return "method LabelSmoothing for a target that is a number"
    return ""


def structure(plan: Plan, network: nn.Module) -> tuple[Any, ...]:
    """Equal for plans that can train in one stack: they differ in strengths, seeds, rows and learning rates only.

    Args:
        plan: What is to be trained.
        network: That it trains.
    """
    recipe, optimizer = plan.recipe, plan.recipe.optimizer
    acting = [one for one in recipe.methods if not isinstance(one, NetworkMethod | AverageMethod | StopMethod)]
    return (
        signature(network),
        tuple(structural_settings(method) for method in acting),
        (optimizer.beta1, optimizer.beta2, optimizer.eps, optimizer.bias_lr),
        (plan.task, plan.dtype, recipe.budget.batch_size, len(plan.train_rows), len(plan.val_rows)),
    )


def structural_settings(method: Method) -> tuple[Any, ...]:
    """Class and settings of `method` that must agree between variants."""
    values = [getattr(method, one.name) for one in fields(method) if not one.metadata.get("strength")]
    return type(method), *values
