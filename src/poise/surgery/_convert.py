"""Batch normalizations of torch as Poise's, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from poise._errors import ConfigError, SurgeryError
from poise.nn import BatchNorm
from poise.surgery._edit import Edit, Edits, Replace, Undo, apply_edits, check_editable
from poise.surgery._graph._call import call_model
from poise.surgery._modes import modes

_EXACT = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
# Private in torch, and the only common base of its batch normalizations of every rank.
_BASE = nn.modules.batchnorm._BatchNorm
_BY_AXES = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_SHARED = ("running_mean", "running_var", "num_batches_tracked")
# Of normalizing row by row instead of by torch's kernel, relative to the outputs.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Leave(Edit):
    """Changes nothing, and says so."""

    kind: str

    def apply(self, model: nn.Module) -> Undo:
        model.get_submodule(self.where)
        return lambda: None

    def line(self) -> str:
        return f"stays {self.kind}"


def convert_batch_norm(
    model: nn.Module, *, ghost_size: int = 0, accumulate: int = 1, num_domains: int = 0, guard: bool = True,
    debias: bool = False, unbiased: bool = True, renorm: tuple[float, float] | None = None,
    synchronized: bool | None = None, example: Any = None,
) -> Edits:  # fmt: skip
    """Make every batch normalization of torch in `model` a `poise.nn.BatchNorm` with the given settings, in place.

    The new layers hold the same Parameter and buffer objects, so an optimizer goes on, state_dicts fit both ways, and
    `undo` gives back the old layers with what was learned meanwhile. Eval-mode outputs stay as they are. Only the exact
    types BatchNorm1d, 2d, 3d and SyncBatchNorm are taken: a subclass may do more than normalize. What stays is listed
    in `diff()` with the reason. eps, momentum, affine and the training flag are those of each layer.

    Args:
        model: Changed in place.
        ghost_size: As for `poise.nn.BatchNorm`, and so are the others.
        accumulate: Micro-batches of an optimizer step.
        num_domains: Domains with running statistics each, which begin with the present ones.
        guard: Whether batches that are not finite move no statistics.
        debias: Whether the running average corrects what it began with.
        unbiased: Whether the variance kept is the unbiased one.
        renorm: (r_max, d_max) of batch renormalization.
        synchronized: Whether statistics are over all ranks; None where SyncBatchNorm was.
        example: A batch, as for `recalibrate`, on which eval-mode outputs are compared; None for no comparison.

    Returns:
        What was changed, with `diff()` and `undo()`.

    Raises:
        ConfigError: If a setting is out of range, or there is nothing to convert.
        SurgeryError: If outputs in eval mode change; then nothing was changed.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU())
        >>> edits = convert_batch_norm(model, accumulate=4, example=torch.randn(2, 3))
        >>> model[1]
        BatchNorm(4, eps=1e-05, momentum=0.1, accumulate=4, guard=True)
        >>> edits.undo()
        >>> type(model[1]).__name__
        'BatchNorm1d'

    Reference: the cases and their papers are those of `poise.nn.BatchNorm`.
    """

    def make(old: Any) -> BatchNorm:
        is_synchronized = isinstance(old, nn.SyncBatchNorm) if synchronized is None else synchronized
        return BatchNorm(
            old.num_features, eps=old.eps, momentum=old.momentum, affine=old.affine, ghost_size=ghost_size,
            accumulate=accumulate, num_domains=num_domains, guard=guard, debias=debias, unbiased=unbiased,
            renorm=renorm, synchronized=is_synchronized,
        )  # fmt: skip

    check_editable(model)
    edits = [
        _edit(name, module, _obstacle(module), make) for name, module in model.named_modules() if _is_torchs(module)
    ]
    _check_found(edits, "of torch")
    return _checked(model, edits, num_domains, example)


def restore_batch_norm(model: nn.Module, example: Any) -> Edits:
    """Make every `poise.nn.BatchNorm` in `model` torch's layer for its number of axes, in place.

    The other way of `convert_batch_norm`, for models that were built with Poise's layer, or saved and loaded since. In
    eval mode nothing changes; in training, statistics are those of the whole batch, as torch's layer has no other.

    Args:
        model: Changed in place.
        example: A batch, as for `recalibrate`: it shows how many axes each layer reads.

    Returns:
        What was changed, with `diff()` and `undo()`.

    Raises:
        ConfigError: If there is nothing to convert.
        SurgeryError: If outputs in eval mode change; then nothing was changed.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), BatchNorm(4))
        >>> print(restore_batch_norm(model, torch.randn(2, 3, 8, 8)).diff())  # doctest: +ELLIPSIS
        1  becomes BatchNorm2d(4, eps=1e-05, ...)    torch's own layer
    """
    check_editable(model)
    layers = {name: module for name, module in model.named_modules() if type(module) is BatchNorm}
    axes = _axes_of(model, list(layers.values()), example)

    def obstacle(layer: BatchNorm) -> str:
        if layer.num_domains:
            return "statistics by domain have no place in torch's layer"
        if layer.frozen:
            return "it is frozen, which torch's layer cannot be"
        found = axes[layer]
        if len(found) != 1:
            return "the example does not reach it" if not found else "it reads inputs of different numbers of axes"
        return _hooked(layer)

    def make(old: Any) -> nn.Module:
        kind = nn.SyncBatchNorm if old.synchronized else axes[old].copy().pop()
        made: nn.Module = kind(old.num_features, old.eps, old.momentum, old.weight is not None)
        return made

    edits = [_edit(name, layer, obstacle(layer), make) for name, layer in layers.items()]
    _check_found(edits, "of Poise")
    return apply_edits(model, edits, example=example)


def _is_torchs(module: nn.Module) -> bool:
    return isinstance(module, _BASE)


def _obstacle(layer: Any) -> str:
    """Why a layer of torch stays; "" if it does not."""
    if type(layer) not in _EXACT:
        return "only the exact types of torch are replaced: a subclass may do more than normalize"
    if not layer.track_running_stats or layer.running_mean is None:
        return "it keeps no running statistics"
    if layer.eps <= 0:
        return "its eps is not above zero"
    if isinstance(layer, nn.SyncBatchNorm) and layer.process_group is not None:
        return "it is synchronized over a group of its own"
    return _hooked(layer)


def _hooked(layer: nn.Module) -> str:
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return "it has hooks, which a new layer would lose" if any(hooks) else ""


def _edit(name: str, old: nn.Module, obstacle: str, make: Callable[[Any], nn.Module]) -> Edit:
    if obstacle:
        return Leave(name, obstacle, 0.0, type(old).__name__)
    new = make(old)
    why = "torch's own layer" if isinstance(old, BatchNorm) else "the same parameters and statistics"
    shift = _ROUNDING if isinstance(new, BatchNorm) and new.num_domains else 0.0
    return Replace(name, why, shift, _sharing(new, old))


def _sharing(new: nn.Module, old: nn.Module) -> nn.Module:
    """`new` with parameters, buffers and training flag of `old`."""
    statistics = old._buffers["running_mean"]
    if statistics is not None:
        new.to(statistics.device, statistics.dtype)
    for name in ("weight", "bias"):
        new._parameters[name] = old._parameters[name]
    for name in _SHARED:
        buffer = old._buffers[name]
        if buffer is not None:
            new._buffers[name] = buffer
    if isinstance(new, BatchNorm) and new.num_domains:
        new.begin_domains()
    new.training = old.training
    return new


def _check_found(edits: list[Edit], whose: str) -> None:
    left = [f"{edit.where!r} ({edit.kind}): {edit.why}" for edit in edits if isinstance(edit, Leave)]
    if len(left) == len(edits):
        raise ConfigError(f"The model has no batch normalization {whose} to convert.", where="; ".join(left) or None)


def _checked(model: nn.Module, edits: list[Edit], num_domains: int, example: Any) -> Edits:
    """Applied; where layers ask for a domain, outputs are compared in each, as all begin with the same statistics."""
    if not num_domains or example is None:
        return apply_edits(model, edits, example=example)
    layers = [edit.layer for edit in edits if isinstance(edit, Replace) and isinstance(edit.layer, BatchNorm)]
    try:
        for layer in layers:
            layer.domain = 0
        return apply_edits(model, edits, example=example)
    finally:
        for layer in layers:
            layer.domain = None


def _axes_of(model: nn.Module, layers: list[BatchNorm], example: Any) -> dict[BatchNorm, set[type]]:
    """The types of torch whose inputs each layer reads."""
    axes: dict[BatchNorm, set[type]] = {layer: set() for layer in layers}

    def see(layer: Any, args: tuple[Tensor, ...]) -> None:
        if args[0].ndim not in _BY_AXES:
            raise SurgeryError(f"torch has no batch normalization for {args[0].ndim} axes.")
        axes[layer].add(_BY_AXES[args[0].ndim])

    handles = [layer.register_forward_pre_hook(see) for layer in layers]
    try:
        with torch.no_grad(), modes(model, training=False), torch.random.fork_rng(devices=[]):
            call_model(model, example)
    finally:
        for handle in handles:
            handle.remove()
    return axes
