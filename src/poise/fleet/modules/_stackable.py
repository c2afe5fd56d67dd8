"""Which trainings of modules can be stacked: what can be said at sight, and what one pass shows."""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from poise.fleet.modules._built import Built
from poise.fleet.modules._job import Job
from poise.fleet.modules._named import stochastic_layers
from poise.fleet.modules._objective import Reader, objective, outputs_of, reads_outputs
from poise.fleet.modules._seeded import seeded
from poise.fleet.stacked._stack import Stack
from poise.fleet.stacked._structure import DTYPES, cannot_stack, signature, structural_settings
from poise.methods import METHODS, BatchMethod, LossMethod, UpdateMethod, Weight
from poise.recipe import Recipe
from poise.surgery import weights_of
from poise.surgery._ready import copy_of
from poise.surgery._regimen._update import turned_kernels

_DROPS_INSIDE = (nn.RNNBase, nn.MultiheadAttention)
_CONVOLUTIONS = (nn.modules.conv._ConvNd,)
_PLAIN_DATA = (bool, int, float, str, tuple, type(None))
_SLOW = "There is a performance drop"  # as torch says where it has no rule for an operator
_TINY = 1e-6
_AGREES = 1e-2  # of a gradient's norm: rounding is far below, and any other function far above


def why_not(recipe: Recipe, built: Built, *, sparing: bool) -> str:
    """Why the training cannot be stacked, or is not worth it; "" if it may be.

    Args:
        recipe: How it is trained.
        built: What is trained.
        sparing: Whether to stack only what gains by it.
    """
    model = built.model
    foreign = [type(one).__name__ for one in recipe.methods if METHODS.get(type(one).__name__) is not type(one)]
    if foreign:
        return f"method {foreign[0]} is none of Poise's"
    if turned_kernels(model) and recipe.of(UpdateMethod):
        return "a kernel keeps its units on axis 1"
    is_on_cpu = all(one.device.type == "cpu" for one in model.parameters())
    if sparing and is_on_cpu and any(isinstance(one, _CONVOLUTIONS) for one in model.modules()):
        return "convolutions on a CPU gain nothing by it"
    return _why_not_layers(model)


def _why_not_layers(model: nn.Module) -> str:
    reason = cannot_stack(model)
    if reason:
        return f"the random numbers of {reason} have no name"
    kinds = {one.dtype for one in model.parameters()}
    if len(kinds) != 1 or not kinds <= set(DTYPES):
        return f"its parameters are of {' and '.join(sorted(str(one).removeprefix('torch.') for one in kinds))}"
    for name, module in model.named_modules():
        if isinstance(module, _DROPS_INSIDE) and module.dropout:
            return f"layer {name or 'itself'} ({type(module).__name__}) drops inside"
    return ""


def structure(recipe: Recipe, built: Built) -> tuple[Any, ...]:
    """Equal for trainings that can share a stack: they differ in strengths and learning rates only."""
    model, config = built.model, recipe.optimizer
    hooks = tuple((len(one._forward_pre_hooks), len(one._forward_hooks)) for one in model.modules())
    acting = (*recipe.of(LossMethod), *recipe.of(UpdateMethod))
    return (
        signature(model), hooks, tuple(one.requires_grad for one in model.parameters()),
        tuple(structural_settings(one) for one in acting), bool(recipe.of(BatchMethod)),
        (config.beta1, config.beta2, config.eps, config.bias_lr), recipe.budget.batch_size,
    )  # fmt: skip


def why_not_together(job: Job, recipe: Recipe, built: Built) -> str:
    """Why a stack of such trainings would compute something else than they do alone; "" if it does the same.

    One pass is tried both ways on a few rows, with copies.
    """
    try:
        with seeded(job.key.stream("trial")):
            return _compared(job, recipe, [copy_of(built.model) for _ in range(3)])
    except Exception as error:  # whatever foreign code raises; alone it may do better, or will say what is wrong
        return f"a pass of a copy failed: {_first_line(error)}"


def _compared(job: Job, recipe: Recipe, copies: Sequence[nn.Module]) -> str:
    alone = copies[0]
    methods, reads = [one.at(0.0) for one in recipe.of(LossMethod)], reads_outputs(recipe)
    trained = {name: one for name, one in weights_of(alone).items() if one.tensor.requires_grad}
    before = _python_state(alone)
    outputs, y = outputs_of(alone, job.example)
    loss = objective(job, methods, trained, outputs, y, reads=reads)
    torch.autograd.backward(loss)
    if _python_state(alone) != before:
        return "a pass changes what is no tensor, or draws from Python's or NumPy's random numbers"
    if any(one.tensor.grad is None for one in trained.values()):
        return "a parameter has no gradient"

    def of_one(network: nn.Module, parameters: Mapping[str, Tensor], x: Any, y: Tensor) -> Tensor:
        own = {name: Weight(parameters[f"model.{name}"], one.role) for name, one in trained.items()}
        return objective(job, methods, own, network(x), y, reads=reads)

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", _SLOW)
            stack = Stack([Reader(one) for one in copies[1:]])
            losses, gradients = stack.gradients(of_one, job.example[0], y, shared=2)
    except Exception as error:  # whatever torch.vmap cannot do in foreign code
        if str(error).startswith(_SLOW):
            return "torch.vmap runs a part of it one model after another"
        return f"torch.vmap cannot run it: {_first_line(error)}"
    found = stack.split(gradients[0])
    pairs = [(one.grad, found[f"model.{name}"]) for name, one in trained.items()]
    return "" if _agree(loss.detach(), losses[0], pairs) else "a stacked pass gives other numbers"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _agree(loss: Tensor, stacked: Tensor, gradients: Sequence[tuple[Tensor | None, Tensor]]) -> bool:
    alone = torch.cat([one.reshape(-1) for one, _ in gradients if one is not None])
    together = torch.cat([one.reshape(-1) for _, one in gradients])
    is_near = (together - alone).norm() <= _AGREES * alone.norm() + _TINY
    return bool(is_near) and bool((stacked - loss).abs() <= _AGREES * loss.abs() + _TINY)


def _python_state(model: nn.Module) -> Any:
    """What a pass could change besides tensors: attributes, and the generators of Python and NumPy."""
    named = stochastic_layers(model).values()
    data = [
        {name: repr(value) for name, value in vars(module).items() if isinstance(value, _PLAIN_DATA)}
        for module in model.modules()
        if module not in named
    ]
    drawn = np.random.get_state(legacy=False)["state"]
    return data, random.getstate(), drawn["pos"], drawn["key"].tobytes()
