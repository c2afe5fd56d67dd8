"""Where faster kernels fit into a graph: chains of normalization, nonlinearity and dropout, and dropout alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from poise.nn import ACTIVATIONS, Dropout, NormActDropout
from poise.surgery._acceleration._swap import SMALLEST, Leave, Reroute, Swap, has_channels_last
from poise.surgery._edit import Edit
from poise.surgery._graph._graph import Graph, Node
from poise.surgery._graph._kinds import TORCH_DROPOUT

FUSED_FROM = 2**19
"""Elements of rows from which one kernel for a chain is faster than torch's layers with a fast dropout, as measured."""
_REROUTED_FROM = 2**16
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_NAMES = {kind: name for name, kind in ACTIVATIONS.items() if name != "identity"}


@dataclass(frozen=True)
class Chain:
    """A normalization, what follows it alone, and what follows that alone."""

    norm: Node
    activation: Node
    dropout: Node

    @property
    def nodes(self) -> tuple[Node, Node, Node]:
        """All three."""
        return self.norm, self.activation, self.dropout


def plan_edits(model: nn.Module, graph: Graph, shift: float) -> list[Edit]:
    """What `accelerate` does to `model`, and what it leaves, each with the reason.

    Args:
        model: Whose layers are in the graph.
        graph: With shapes, if it was recorded.
        shift: What rounding may do to the outputs in all.
    """
    paths = {module: name for name, module in reversed([*model.named_modules()])}
    chains, edits = _chains(graph), []
    for chain in chains:
        edits += _fused(chain, shift / len(chains))
    fused = {node.module for chain in chains for node in chain.nodes}
    for module, path in paths.items():
        if isinstance(module, TORCH_DROPOUT) and module not in fused:
            edits.append(_dropout(module, path, graph.calls_of(module), module is model))
    owners: dict[str, list[Node]] = {}
    for node in graph:
        if node.function is functional.dropout:
            owners.setdefault(node.name, []).append(node)
    return edits + [_rerouted(path, calls) for path, calls in owners.items()]


def _chains(graph: Graph) -> list[Chain]:
    """Those that pay; layers that are called elsewhere, too, must stay and keep theirs."""
    found = [chain for node in graph if (chain := _chain(graph, node)) is not None]
    while True:
        taken = {node for chain in found for node in chain.nodes}
        kept = [chain for chain in found if all(taken.issuperset(_calls(graph, node)) for node in chain.nodes)]
        if len(kept) == len(found):
            return found
        found = kept


def _calls(graph: Graph, node: Node) -> list[Node]:
    return graph.calls_of(node.module) if node.module is not None else [node]


def _chain(graph: Graph, norm: Node) -> Chain | None:
    if not _is_fusable(norm) or len(_calls(graph, norm)) > 1:
        return None
    activation = graph.sole_consumer(norm)
    if activation is None or _activation(activation.module) is None:
        return None
    dropout = graph.sole_consumer(activation)
    if dropout is None or type(dropout.module) is not nn.Dropout or not 0 < dropout.module.p < 1:
        return None
    chain = Chain(norm, activation, dropout)
    # A norm in eval mode beside a dropout in training is frozen; one layer has one mode.
    apart = norm.module is None or norm.module.training != dropout.module.training
    return None if apart or any(_has_hooks(node.module) for node in chain.nodes) else chain


def _is_fusable(node: Node) -> bool:
    """Whether it is a norm that NormActDropout computes, of a size and layout for which that is faster."""
    norm, shape = node.module, node.shape
    if type(norm) in _BATCH_NORMS and isinstance(norm, nn.modules.batchnorm._BatchNorm):
        fits = norm.momentum is not None and norm.running_mean is not None and norm.eps > 0
    elif type(norm) is nn.LayerNorm and shape is not None:
        fits = len(norm.normalized_shape) == 1 and len(shape) == 2 and norm.eps > 0
    else:
        return False
    if shape is None or not fits:
        return fits
    x: Tensor = node.arguments[0][0]
    if x.dtype is torch.float16:
        return False
    # Maps in torch's default layout are copied, which costs what the kernel wins.
    return x.numel() >= (FUSED_FROM if x.ndim == 2 else SMALLEST) and (x.ndim == 2 or has_channels_last(x))


def _activation(module: nn.Module | None) -> str | None:
    """The name under which kernels know it, with torch's default settings."""
    if module is None or (isinstance(module, nn.GELU) and module.approximate != "none"):
        return None
    if isinstance(module, nn.LeakyReLU) and module.negative_slope != nn.LeakyReLU().negative_slope:
        return None
    return _NAMES.get(type(module))


def _has_hooks(module: nn.Module | None) -> bool:
    return module is None or bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def _fused(chain: Chain, shift: float) -> list[Edit]:
    norm, activation, dropout = (node.module for node in chain.nodes)
    name = _activation(activation)
    if not isinstance(norm, (*_BATCH_NORMS, nn.LayerNorm)) or not isinstance(dropout, nn.Dropout) or name is None:
        return []
    batch = not isinstance(norm, nn.LayerNorm)
    channels = norm.num_features if isinstance(norm, _BATCH_NORMS) else int(norm.normalized_shape[0])
    momentum = norm.momentum if isinstance(norm, _BATCH_NORMS) else None
    layer = NormActDropout(
        channels, dropout.p, activation=name, norm="batch" if batch else "layer", eps=norm.eps,
        momentum=0.1 if momentum is None else momentum, affine=False,
    )  # fmt: skip
    # The same objects: optimizers, averages and state_dicts see no difference.
    layer._parameters.update(norm._parameters)
    layer._buffers.update(norm._buffers)
    why = f"one kernel with {chain.activation.name} and {chain.dropout.name}"
    gone = f"part of {chain.norm.name}"
    return [
        Swap(chain.norm.name, why, shift, layer),
        Swap(chain.activation.name, gone, 0.0, nn.Identity()),
        Swap(chain.dropout.name, gone, 0.0, nn.Identity()),
    ]


def _dropout(module: nn.Module, path: str, calls: list[Node], is_network: bool) -> Edit:
    """Dropout alone."""
    why = _stays(module, calls, is_network)
    if why or not isinstance(module, nn.Dropout):
        return Leave(path, why, 0.0)
    return Swap(path, "masks drawn faster", 0.0, Dropout(module.p))


def _stays(module: nn.Module, calls: list[Node], is_network: bool) -> str:
    if type(module) is not nn.Dropout:
        return f"{type(module).__name__} has no faster kernel"
    sizes = [call.shape.numel() for call in calls if call.shape is not None]
    inputs = [one for call in calls for one in call.arguments[0]]
    reasons = {
        "it is the network itself": is_network,
        f"p = {module.p:g} draws nothing that needs a kernel": not 0 < module.p < 1,
        "it has hooks": _has_hooks(module),
        "it works in place on what others use": module.inplace and not all(_is_alone(call) for call in calls),
        f"torch is as fast for {max(sizes, default=0)} elements": 0 < max(sizes, default=0) < SMALLEST,
        "no kernel for float16": any(isinstance(one, Tensor) and one.dtype is torch.float16 for one in inputs),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _is_alone(call: Node) -> bool:
    """Whether nobody else uses what it takes, or what that is a view of."""
    node = call
    while node.inputs:
        node = node.inputs[0]
        if len(node.users) > 1 or node.is_output:
            return False
        if not node.moves:
            return node.op != "input"
    return False


def _rerouted(path: str, calls: list[Node]) -> Edit:
    sizes = [call.shape.numel() for call in calls if call.shape is not None]
    if sizes and sum(sizes) < _REROUTED_FROM:
        return Leave(path, f"functional dropout of {sum(sizes)} elements costs less than the detour", 0.0)
    return Reroute(path, f"{len(calls)} calls", 0.0)
