"""The steps of folding, on a copy of a model and the graph of it."""

from __future__ import annotations

import inspect
from typing import Literal

import torch
from torch import Tensor, nn

from poise.nn import BatchNorm, NormActDropout, Stochastic, make_activation
from poise.surgery._edit import Replace, is_observed
from poise.surgery._folding._fold_plan import FoldPlan, FoldStep
from poise.surgery._folding._fold_rules import (
    affine_of,
    channel_axis,
    is_affine_norm,
    num_channels,
    scale_inputs,
    scale_outputs,
    shift_fails,
    takes_affine,
)
from poise.surgery._freeze import is_frozen
from poise.surgery._graph._channels import as_map, channels_after, moves_between
from poise.surgery._graph._graph import Graph, Node
from poise.surgery._graph._kinds import TORCH_BATCH_NORM, TORCH_DROPOUT

_FUNCTIONS = {
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "feature_dropout",
}  # fmt: skip
# Stochastic depth as others write it; each package has a class of its own.
_LAYERS = {
    *("batch_norm", "linear", "conv1d", "conv2d", "conv3d"),
    *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
}  # fmt: skip
_OWN = "a class of its own, which may compute something else"
_IDLE = "its dropout does nothing in eval mode"
_FOREIGN = ("DropPath", "StochasticDepth")


class _StaysError(Exception):
    """Why a normalization stays; it never leaves this file."""


class Folder:
    """Folds a model in place.

    Args:
        model: In eval mode.
        graph: Recorded from it; it is kept in step with the model.
    """

    def __init__(self, model: nn.Module, graph: Graph) -> None:
        self.model, self.graph = model, graph
        self.paths: dict[nn.Module, str] = {module: name for name, module in reversed([*model.named_modules()])}
        self.steps: list[FoldStep] = []
        self._adopt()
        read = {name for node in graph if node.module is None for name in node.parameters}
        parameters = dict(model.named_parameters(remove_duplicate=False))
        # Weights that a function reads, past their layer.
        self.read = {id(parameters[name]) for name in read}

    def run(self) -> FoldPlan:
        """Remove and fold what can be."""
        for module in list(self.paths):
            self._remove(module)
        for node in self.graph:
            if node.module is None and node.op in _FUNCTIONS:
                self._pass(node)
        called = dict.fromkeys(node.module for node in self.graph if node.module is not None)
        for module in called:
            if module in self.paths:
                self._fold(module)
        functions = dict.fromkeys(node.name for node in self.graph if node.op == "batch_norm")
        for module, path in self.paths.items():
            if isinstance(module, TORCH_BATCH_NORM) and module not in called:
                own = functions.pop(path, path) is None
                self._leave(module, _OWN if own else "the example does not reach it")
        for path in functions:
            self._note(path, "batch_norm", "left", "a function and no layer; its caller holds the statistics")
        return FoldPlan(tuple(self.steps))

    def _adopt(self) -> None:
        """Take functions that are all that a subclass of a known layer calls for calls of that layer."""
        layers = dict(self.model.named_modules(remove_duplicate=False))
        for node in self.graph:
            layer = layers.get(node.name)
            if node.module is None and node.op in _LAYERS and (takes_affine(layer) or is_affine_norm(layer)):
                args, kwargs = node.arguments
                node.module, node.arguments = layer, ((args[0] if args else kwargs["input"],), {})

    def _remove(self, module: nn.Module) -> None:
        """Take a dropout out, whole or as the setting of a layer."""
        if isinstance(module, nn.RNNBase | nn.MultiheadAttention) and module.dropout:
            module.dropout = 0.0
            self._note(self.paths[module], type(module).__name__, "removed", _IDLE)
        if isinstance(module, NormActDropout):
            module.p = 0.0
            if module.norm == "none" and module.weight is None:
                self._swap(
                    module, make_activation(module.activation), "removed", "its dropout does nothing in eval mode"
                )
        elif _is_noise(module):
            if module is self.model or is_observed(module):
                self._leave(module, "it is the network itself" if module is self.model else "it has hooks")
            else:
                self._swap(module, nn.Identity(), "removed", "does nothing in eval mode")

    def _pass(self, node: Node) -> None:
        args, kwargs = node.arguments
        if kwargs.get("training", kwargs.get("train", args[2] if len(args) > 2 else True)):
            self._note(node.name, node.op, "left", "it drops in eval mode: training=self.training is missing")
        else:
            node.module = nn.Identity()

    def _fold(self, module: nn.Module) -> None:
        """Fold one batch normalization, into what comes before it or what follows."""
        if not is_affine_norm(module):
            if isinstance(module, TORCH_BATCH_NORM):
                self._leave(module, _OWN)
            return
        try:
            found = affine_of(module)
            if isinstance(found, str):
                raise _StaysError(found)
            self._into_neighbors(module, *found)
        except _StaysError as reason:
            self._leave(module, str(reason))

    def _into_neighbors(self, norm: nn.Module, scale: Tensor, shift: Tensor) -> None:
        calls = self.graph.calls_of(norm)
        if is_observed(norm) and not _is_only_held(norm):
            raise _StaysError("it has hooks")
        if any(len(call.arguments[0]) != 1 or call.arguments[1] for call in calls):
            raise _StaysError("it is called with more than its input")
        try:
            kernels = self._sources(calls)
        except _StaysError as before:
            if isinstance(norm, NormActDropout) and norm.activation != "identity":
                raise
            try:
                kernels = self._consumers(calls, shift)
            except _StaysError as after:
                raise _StaysError(f"{before}; {after}") from None
            for kernel, channels in kernels.items():
                scale_inputs(kernel, scale[channels], shift[channels])
        else:
            for kernel, channels in kernels.items():
                scale_outputs(kernel, scale[channels], shift[channels])
        layer = make_activation(norm.activation) if isinstance(norm, NormActDropout) else nn.Identity()
        self._swap(norm, layer, "folded", "into " + ", ".join(self.paths[kernel] for kernel in kernels))

    def _sources(self, calls: list[Node]) -> dict[nn.Module, Tensor]:
        """The kernels before all calls of a norm, with the norm's channel for each of theirs."""
        kernels: dict[nn.Module, Tensor] = {}
        for call in calls:
            source = self.graph.source(call)
            if source is None or source.module is None or not takes_affine(source.module):
                raise _StaysError("no kernel before it")
            kernels[source.module] = torch.empty(0)
        for kernel in list(kernels):
            name = f"{self.paths[kernel]} before it"
            self._check_open(kernel, name)
            pairs = [(made, self.graph.sole_consumer(made)) for made in self.graph.calls_of(kernel)]
            if any(call not in calls for _, call in pairs):
                raise _StaysError(f"{name} feeds more than that")
            kernels[kernel] = _agreed([_of_outputs(made, call) for made, call in pairs if call is not None], name)
        return kernels

    def _consumers(self, calls: list[Node], shift: Tensor) -> dict[nn.Module, Tensor]:
        """The kernels after all calls of a norm, with the norm's channel for each of theirs."""
        kernels: dict[nn.Module, Tensor] = {}
        for call in calls:
            users = self.graph.consumers(call)
            if self.graph.feeds_output(call) or not users:
                raise _StaysError("the network returns it")
            for user in users:
                if user.module is None or not takes_affine(user.module):
                    raise _StaysError(f"{_kind(user)} takes what it returns")
                kernels[user.module] = torch.empty(0)
        for kernel in list(kernels):
            name = f"{self.paths[kernel]} after it"
            self._check_open(kernel, name)
            pairs = [(self.graph.source(user), user) for user in self.graph.calls_of(kernel)]
            if any(call not in calls for call, _ in pairs):
                raise _StaysError(f"{name} takes more than that")
            kernels[kernel] = _agreed([_of_inputs(call, user) for call, user in pairs if call is not None], name)
            if bool(shift[kernels[kernel]].any()) and (reason := shift_fails(kernel)):
                raise _StaysError(f"{name} {reason}")
        return kernels

    def _check_open(self, kernel: nn.Module, name: str) -> None:
        if is_observed(kernel):
            raise _StaysError(f"{name} has hooks")
        if any(id(one) in self.read for one in kernel.parameters()):
            raise _StaysError(f"{name} has weights that a function reads")

    def _swap(self, module: nn.Module, layer: nn.Module, outcome: Literal["folded", "removed"], why: str) -> None:
        path = self.paths[module]
        Replace(path, why, 0.0, layer.train(module.training)).apply(self.model)
        for call in self.graph.calls_of(module):
            call.module = layer
        self._note(path, type(module).__name__, outcome, why)

    def _leave(self, module: nn.Module, why: str) -> None:
        self._note(self.paths[module], type(module).__name__, "left", why)

    def _note(self, where: str, layer: str, outcome: Literal["folded", "removed", "left"], why: str) -> None:
        self.steps.append(FoldStep(where, layer, outcome, why))


def _of_outputs(made: Node, call: Node) -> Tensor | None:
    """For each channel that a kernel makes the channel of the norm that it becomes."""
    if made.shape is None or made.module is None:
        return None
    index = channels_after(made.shape, channel_axis(made.module), moves_between(call, made))
    if index is None or index.shape != call.arguments[0][0].shape:
        return None
    return as_map(index, _along(index.shape, 1), num_channels(made.module, outputs=True))


def _of_inputs(call: Node, user: Node) -> Tensor | None:
    """For each channel that a kernel takes the channel of the norm that it was."""
    if call.shape is None or user.module is None:
        return None
    index = channels_after(call.shape, 1, moves_between(user, call))
    if index is None or index.shape != user.arguments[0][0].shape:
        return None
    axis = index.ndim + channel_axis(user.module)
    return as_map(_along(index.shape, axis), index, num_channels(user.module, outputs=False))


def _along(shape: torch.Size, axis: int) -> Tensor:
    """The index along one axis, for every element."""
    return torch.arange(shape[axis]).view(-1, *([1] * (len(shape) - axis - 1))).expand(shape)


def _agreed(found: list[Tensor | None], name: str) -> Tensor:
    """The channels that all calls of a kernel agree on."""
    first = found[0]
    if first is None or any(one is None or not torch.equal(one, first) for one in found):
        raise _StaysError(f"the channels of {name} are not its own")
    return first


def _kind(node: Node) -> str:
    return node.op if node.module is None else type(node.module).__name__


def _is_only_held(norm: nn.Module) -> bool:
    """Whether its one hook is that of `freeze`, which an inference needs no more."""
    hooks = len(norm._forward_pre_hooks) + len(norm._forward_hooks)
    return hooks == 1 and not isinstance(norm, BatchNorm) and is_frozen(norm)


def _is_noise(module: nn.Module) -> bool:
    """Whether it does nothing in eval mode."""
    if isinstance(module, TORCH_DROPOUT | Stochastic):
        return True
    if not type(module).__name__.endswith(_FOREIGN) or module.state_dict():
        return False
    return len(inspect.signature(module.forward).parameters) == 1
