"""A torch module as an ONNX graph."""

from __future__ import annotations

import inspect
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from poise._errors import ConfigError, ExportError
from poise.surgery._graph._call import arguments_of, tensors_of
from poise.surgery._modes import modes

if TYPE_CHECKING:
    from onnx import ModelProto

_LARGEST = 2_000_000_000
_SHOWN = 300


class Flat(nn.Module):
    """A model as a function of tensors alone, whose outputs are a tuple of tensors.

    Args:
        model: Any.
        example: A batch, as for `call_model`, with tensors whose first axis is that of the rows.
    """

    def __init__(self, model: nn.Module, example: Any) -> None:
        super().__init__()
        arguments = arguments_of(model, example)
        leaves, self._structure = tree_flatten(arguments)
        self._constants = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self._places = [index for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        self.tensors = [leaves[index] for index in self._places]
        self.names = [_name(model, tree_unflatten(range(len(leaves)), self._structure), i) for i in self._places]
        self.model = model
        self.training = False

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The tensors that the model returns."""
        leaves = list(self._constants)
        for index, tensor in zip(self._places, tensors, strict=True):
            leaves[index] = tensor
        args, kwargs = tree_unflatten(leaves, self._structure)
        return tuple(tensors_of(self.model(*args, **kwargs)))


def _name(model: nn.Module, arguments: Any, leaf: int) -> str:
    """The name of the parameter of `forward` that the leaf numbered `leaf` belongs to."""
    args, kwargs = arguments
    bound = inspect.signature(model.forward).bind_partial(*args, **kwargs).arguments
    for name, value in bound.items():
        inner = tree_flatten(value)[0]
        if inner == [leaf]:
            return str(next(iter(value))) if isinstance(value, dict) else name
        if leaf in inner and isinstance(value, dict):
            key = next(key for key, one in value.items() if leaf in tree_flatten(one)[0])
            return str(key) if tree_flatten(value[key])[0] == [leaf] else f"{key}_{leaf}"
    return f"input_{leaf}"


def capture(
    model: nn.Module, example: Mapping[str, Tensor], outputs: Sequence[str], fixed: Sequence[str]
) -> ModelProto:
    """The ONNX graph of `model` in eval mode, with one axis "batch" for any number of rows.

    Args:
        model: A function of tensors that returns one tensor or a tuple of them.
        example: Its arguments in order by the names they get, of at least two rows.
        outputs: Names of the outputs.
        fixed: Names of arguments whose first axis is not that of the rows.

    Raises:
        ExportError: If torch cannot follow the model, or ONNX has no operator for what it does.
    """
    batch = torch.export.Dim("batch", min=1)
    shapes = tuple(None if name in fixed else {0: batch} for name in example)
    try:
        with _silence(), modes(model, training=False), torch.no_grad():
            program: Any = torch.onnx.export(
                model,
                tuple(example.values()),
                dynamo=True,
                dynamic_shapes=(shapes,),
                input_names=list(example),
                output_names=list(outputs),
                external_data=False,
                verbose=False,
            )
            proto: ModelProto = program.model_proto
    except Exception as error:  # whatever the model's own code, torch and onnxscript raise when it is followed
        raise ExportError(
            f"The model cannot be written as ONNX: {_reason(error)}",
            repair="Change the layer that is named: no control flow that depends on values, no fixed number of rows, "
            "only operators of torch.",
        ) from error
    _strip(proto)
    return proto


def check_weights(model: nn.Module) -> None:
    """Raise unless all weights are there, in a dtype that can be compared, and fit a single file.

    Args:
        model: Any.

    Raises:
        ConfigError: If not.
    """
    kept = (*model.parameters(), *model.buffers())
    for one in kept:
        if one.is_meta or one.dtype in (torch.float16, torch.bfloat16):
            what = "on the meta device, without values" if one.is_meta else f"in {one.dtype}"
            raise ConfigError(
                f"The model is {what}, and outputs could not be compared.",
                repair="Load its weights first." if one.is_meta else "Export model.float().",
            )
    size = sum(one.numel() * one.element_size() for one in kept)
    if size > _LARGEST:
        raise ConfigError(
            f"The weights have {size / 1e9:.1f} GB; a single ONNX file holds at most {_LARGEST / 1e9:.0f}.",
            repair="Call torch.onnx.export with external_data=True.",
        )


@contextmanager
def _silence() -> Iterator[None]:
    """Without torch's own remarks on its exporter; whether the result is right is seen from its numbers."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _reason(error: BaseException) -> str:
    """The first line of what went wrong in the beginning, without colors."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)) or type(error).__name__
    line = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return f"{line[:_SHOWN].rstrip('.')}."


def _strip(proto: ModelProto) -> None:
    """Take out what the exporter noted of its own work, paths of source files among it."""
    for part in (proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        part.ClearField("metadata_props")
    for node in proto.graph.node:
        node.ClearField("doc_string")
    proto.ClearField("metadata_props")
