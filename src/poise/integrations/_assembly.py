"""Torch modules put together to one ONNX graph; modules of one structure are followed by torch only once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from poise.integrations._capture import capture
from poise.nn import Stochastic

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

# Attributes of layers that are no part of what they do in eval mode.
_ONLY_IN_TRAINING = {"training", "p", "momentum"}


class Value(NamedTuple):
    """A tensor of the graph.

    Args:
        name: In the graph.
        example: What it may be, for three rows.
    """

    name: str
    example: Tensor


@dataclass(frozen=True)
class _Template:
    """The graph of a module whose weights are inputs: those of the module, then `w0`, `w1`, …"""

    proto: ModelProto
    outputs: tuple[str, ...]
    constants: Mapping[str, str]


class Assembly:
    """A growing graph.

    Args:
        prefix: Of the names of all that is in it.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self._templates: dict[Hashable, _Template] = {}

    @property
    def proto(self) -> ModelProto:
        """A model of the version of all parts, with whatever graph."""
        return next(iter(self._templates.values())).proto

    def add(self, name: str, module: nn.Module, inputs: Sequence[Value]) -> tuple[Value, ...]:
        """What `module` makes of `inputs`.

        Args:
            name: Of this part.
            module: In eval mode; a function of tensors that returns one or a tuple of them.
            inputs: Its arguments.

        Raises:
            ExportError: If torch cannot follow it.
        """
        own = f"{self.prefix}{name}/"
        weights = _weights(module)
        with torch.no_grad():
            made = module(*(one.example for one in inputs))
        made = (made,) if isinstance(made, Tensor) else made
        template = self._template(module, weights, inputs, len(made))
        known = {**template.constants, **{f"x{index}": one.name for index, one in enumerate(inputs)}}
        known |= {f"w{index}": own + weight for index, weight in enumerate(weights)}
        used = {given for node in template.proto.graph.node for given in node.input}
        self._keep({own + weight: tensor for i, (weight, tensor) in enumerate(weights.items()) if f"w{i}" in used})
        self.nodes += [_renamed(node, own, known) for node in template.proto.graph.node]
        return tuple(Value(known.get(out, own + out), one) for out, one in zip(template.outputs, made, strict=True))

    def _template(
        self, module: nn.Module, weights: Mapping[str, Tensor], inputs: Sequence[Value], num_outputs: int
    ) -> _Template:
        key = structure_of(module), tuple((one.example.dtype, one.example.shape) for one in inputs)
        if key not in self._templates:
            example = {f"x{index}": one.example for index, one in enumerate(inputs)}
            fixed = {f"w{index}": weight.detach() for index, weight in enumerate(weights.values())}
            outputs = tuple(f"y{index}" for index in range(num_outputs))
            proto = capture(_Function(module, list(weights)), example | fixed, outputs, list(fixed))
            shared = f"{self.prefix}shared{len(self._templates)}/"
            self._templates[key] = _Template(proto, outputs, self._adopt(proto, shared))
        return self._templates[key]

    def _adopt(self, proto: ModelProto, prefix: str) -> dict[str, str]:
        """Take over the constants of a template; their new names."""
        used = {given for node in proto.graph.node for given in node.input}
        found = {}
        for one in proto.graph.initializer:
            if one.name in used:
                found[one.name] = prefix + one.name
                self.initializers.append(one)
                one.name = found[one.name]
        return found

    def _keep(self, tensors: Mapping[str, Tensor]) -> None:
        from onnx import numpy_helper

        self.initializers += [numpy_helper.from_array(one.detach().numpy(), name) for name, one in tensors.items()]


class _Function(nn.Module):
    """A module as a function of its weights, too."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.names = names
        # Within a function, so that the weights are none of this module's own.
        self.module: Callable[[], nn.Module] = lambda: module
        self.training = False

    def forward(self, *tensors: Tensor) -> Any:
        own = len(tensors) - len(self.names)
        return functional_call(self.module(), dict(zip(self.names, tensors[own:], strict=True)), tensors[:own])


def structure_of(module: nn.Module) -> Hashable:
    """Equal for modules that do the same in eval mode but for the numbers in their tensors."""
    parts: list[Hashable] = []
    for name, part in module.named_modules():
        is_identity = isinstance(part, Stochastic)
        settings = {} if is_identity else {key: value for key, value in vars(part).items() if key[0] != "_"}
        plain = sorted((key, repr(value)) for key, value in settings.items() if key not in _ONLY_IN_TRAINING)
        # A table may have any number of rows.
        has_rows = isinstance(part, nn.Embedding)
        plain = [one for one in plain if not (has_rows and one[0] == "num_embeddings")]
        own = {**dict(part.named_parameters(recurse=False)), **dict(part.named_buffers(recurse=False))}
        shapes = tuple((key, one.dtype, tuple(one.shape[has_rows:])) for key, one in own.items())
        parts.append((name, type(part), tuple(plain), shapes))
    return tuple(parts)


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _renamed(node: NodeProto, own: str, known: Mapping[str, str]) -> NodeProto:
    copied = type(node)()
    copied.CopyFrom(node)
    copied.name = own + node.name
    for side in (copied.input, copied.output):
        for index, name in enumerate(side):
            side[index] = known.get(name, own + name) if name else name
    return copied
