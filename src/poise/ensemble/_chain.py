"""Networks that are a chain from their first dropout on: dropout, linear layers and what acts on single features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from poise._errors import SurgeryError
from poise.ensemble._sources import draws, dropout_p, is_source
from poise.kernels.reference import MASK_LEVELS, drop_threshold
from poise.nn import ACTIVATIONS, Dropout, Linear, NormActDropout, Stochastic
from poise.surgery._graph._graph import Node
from poise.surgery._graph._trace import record

Pointwise = Callable[[Tensor, Tensor | None], Tensor]
"""Of values (K, B) and the features they belong to, None for all; it may change the values in place."""


@dataclass(frozen=True)
class Drop:
    """Drops features with probability `p`."""

    p: float


@dataclass(frozen=True)
class Act:
    """Acts on single features; `keeps_zero` where it leaves zero as it is."""

    function: Pointwise
    keeps_zero: bool


@dataclass(frozen=True)
class Affine:
    """A linear layer."""

    weight: Tensor
    bias: Tensor | None


Step = Drop | Act | Affine


@dataclass(frozen=True)
class Chain:
    """A network as `steps` from its first dropout on.

    Args:
        entry: Makes (B, F) of the network's input: what the first layer that drops is given.
        steps: A Drop comes before any Affine, an Affine after every Drop, and what is dropped stays zero in between.
    """

    entry: Callable[[Tensor], Tensor]
    steps: tuple[Step, ...]


_KEEP_ZERO = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Hardswish,
    nn.Hardtanh, nn.Softsign, nn.Tanhshrink, nn.Softshrink, nn.Hardshrink, nn.Identity,
)  # fmt: skip
_MOVE_ZERO = (nn.Sigmoid, nn.Softplus, nn.LogSigmoid, nn.Hardsigmoid)
_FUNCTIONS = {
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "tanh", "hardswish", "softsign",
}  # fmt: skip


def chain_of(model: nn.Module, x: Tensor) -> Chain | None:
    """`model` as a chain, or None where it is none.

    A `nn.Sequential` is read as it stands; any other model from a run on the first row.

    Args:
        model: The network, in eval mode.
        x: (B, ...) rows.
    """
    if torch.is_autocast_enabled(x.device.type) or len(x) == 0 or _has_global_hook():
        return None
    layers = _flat(model)
    found = _of_layers(layers) if layers is not None else _of_run(model, x)
    return found if found is not None and _is_chain(found.steps) else None


def _has_global_hook() -> bool:
    return bool(nn.modules.module._has_any_global_hook())  # type: ignore[no-untyped-call] # torch has no types for it


def _flat(model: nn.Module) -> list[nn.Module] | None:
    """The layers of a Sequential of Sequentials; None for anything else."""
    if type(model) is not nn.Sequential or not _is_plain(model):
        return None
    layers: list[nn.Module] = []
    for child in model:
        if type(child) is nn.Sequential:
            inner = _flat(child)
            if inner is None:
                return None
            layers.extend(inner)
        else:
            layers.append(child)
    return layers


def _of_layers(layers: list[nn.Module]) -> Chain | None:
    # A layer of no known type may hold anything, so it is only passed if nothing in it can draw.
    start = next((i for i, layer in enumerate(layers) if any(map(is_source, layer.modules()))), len(layers))

    def entry(x: Tensor) -> Tensor:
        for layer in layers[:start]:
            x = layer(x)
        return x

    steps: list[Step] = []
    for layer in layers[start:]:
        more = _steps_of(layer)
        if more is None:
            return None
        steps.extend(more)
    return Chain(entry, tuple(steps))


def _of_run(model: nn.Module, x: Tensor) -> Chain | None:
    nodes = list(record(model, x[:1]))
    start = next((node.index for node in nodes if _draws(node)), None)
    if start is None or [node for node in nodes if node.is_output] != nodes[-1:] or len(nodes[start].shape or ()) != 2:
        return None
    # What draws and is no node is hidden in a fused kernel of eval mode.
    if not {one for one in model.modules() if is_source(one)} <= {node.module for node in nodes[start:]}:
        return None
    steps: list[Step] = []
    for before, node in zip(nodes[start - 1 :], nodes[start:], strict=False):
        more = _steps_of_node(node)
        if more is None or len(node.inputs) != 1 or (node.index > start and node.inputs != (before,)):
            return None
        steps.extend(more)
    return Chain(_Entry(model, nodes[start]), tuple(steps))


def _draws(node: Node) -> bool:
    return is_source(node.module) if node.module is not None else draws(node.function, *node.arguments)


def _steps_of_node(node: Node) -> list[Step] | None:
    if node.module is not None:
        return _steps_of(node.module)
    args, kwargs = node.arguments
    function = node.function
    if function is functional.dropout:
        return [Drop(dropout_p(args, kwargs))]
    if node.op not in _FUNCTIONS or function is None or kwargs.get("out") is not None:
        return None
    return [Act(lambda values, _: function(values, *args[1:], **kwargs), keeps_zero=True)]


def _steps_of(layer: nn.Module) -> list[Step] | None:
    """The steps of a layer; None for one that mixes features, or that is more than its type says."""
    return _plain_steps(layer, type(layer)) if _is_plain(layer) else None


def _plain_steps(layer: Any, kind: type) -> list[Step] | None:
    if kind in (nn.Dropout, Dropout):
        return _drop(layer)
    if kind in (nn.Linear, Linear):
        return [Affine(layer.weight.detach(), None if layer.bias is None else layer.bias.detach())]
    if kind in _KEEP_ZERO or kind in _MOVE_ZERO:
        return [_act(layer)]
    if kind is nn.BatchNorm1d and layer.running_mean is not None:
        return [_scaled(layer)]
    if kind is NormActDropout and layer.norm != "layer":
        act = _act(ACTIVATIONS[layer.activation]())
        norm = [_scaled(layer)] if layer.norm == "batch" or layer.weight is not None else []
        return [*norm, act, *_drop(layer)]
    return None


def _act(layer: nn.Module) -> Act:
    if type(layer) is nn.ReLU:
        return Act(lambda values, _: values.relu_(), keeps_zero=True)
    return Act(lambda values, _: layer(values), keeps_zero=type(layer) in _KEEP_ZERO)


def _drop(layer: Any) -> list[Step]:
    # Poise's own layers drop with a multiple of 2^-16.
    p = float(layer.p)
    if isinstance(layer, Stochastic):
        p = drop_threshold(p) / MASK_LEVELS
    return [Drop(p)] if p > 0 else []


def _scaled(layer: Any) -> Act:
    """Batch normalization by running statistics, as one scale and one shift."""
    scale = torch.ones_like(layer.weight) if layer.running_var is None else (layer.running_var + layer.eps).rsqrt()
    if layer.weight is not None:
        scale = scale * layer.weight.detach()
    shift = torch.zeros_like(scale) if layer.bias is None else layer.bias.detach()
    if layer.running_mean is not None:
        shift = shift - layer.running_mean * scale

    def normalize(values: Tensor, features: Tensor | None) -> Tensor:
        one, other = (scale, shift) if features is None else (scale[features], shift[features])
        return torch.addcmul(other.unsqueeze(1), values, one.unsqueeze(1))

    return Act(normalize, keeps_zero=False)


def _is_plain(layer: nn.Module) -> bool:
    """Whether a call of the layer is a call of its class's own `forward`."""
    return not (layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer))


def _is_chain(steps: tuple[Step, ...]) -> bool:
    first = next((step for step in steps if not isinstance(step, Act)), None)
    if not isinstance(first, Drop):
        return False
    has_dropped = False
    for step in steps:
        if isinstance(step, Affine):
            has_dropped = False
        elif isinstance(step, Drop):
            has_dropped = True
            if step.p >= 1:
                return False
        elif has_dropped and not step.keeps_zero:
            return False
    return not has_dropped


class _Reached(BaseException):
    """The pass has reached the first dropout. No Exception, which the network's own code might catch."""

    def __init__(self, x: Tensor) -> None:
        self.x = x


class _Entry(TorchFunctionMode):
    """Runs a network up to its first dropout."""

    def __init__(self, model: nn.Module, first: Node) -> None:
        super().__init__()
        self._model, self._first = model, first

    def __call__(self, x: Tensor) -> Tensor:
        """What the first dropout is given."""
        module = self._first.module
        handle = None if module is None else module.register_forward_pre_hook(self._stop)
        try:
            with self:
                self._model(x)
        except _Reached as reached:
            return reached.x
        finally:
            if handle is not None:
                handle.remove()
        raise SurgeryError("The first dropout was not reached again.", where=f"module {self._first.name!r}")

    def _stop(self, _: nn.Module, args: tuple[Any, ...]) -> None:
        raise _Reached(args[0])

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.dropout and self._first.module is None and dropout_p(args, kwargs) > 0:
            raise _Reached(kwargs.get("input", args[0] if args else None))
        return func(*args, **kwargs)
