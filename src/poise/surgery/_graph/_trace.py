"""The graph of a network, recorded while it runs, or read from its source."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from poise._errors import ConfigError
from poise.surgery._graph._call import call_model, tensors_of
from poise.surgery._graph._graph import LIKE_ANOTHER, Graph, Node
from poise.surgery._modes import modes

_IN_PLACE = {f"__i{name}__" for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor")}
_FLAT = ("torch.nn.", "poise.nn.")


def graph_of(model: nn.Module, example: Any = None) -> Graph:
    """The graph of `model`: from a run where there is an example, from its source by `torch.fx` where there is none.

    Args:
        model: Any.
        example: A batch, as for `call_model`; None for none.

    Raises:
        ConfigError: If there is no example and the source cannot be followed.
    """
    return _read(model) if example is None else record(model, example)


def record(model: nn.Module, example: Any) -> Graph:
    """The graph of one eval-mode pass over `example`, without gradients; modes and random state stay as they were.

    It is taken from a run and not from the source, so that control flow, functional calls and layers of any origin are
    seen as they are. Layers of torch and of Poise are single nodes; other modules are looked into.

    Args:
        model: Any.
        example: A batch, as for `call_model`.
    """
    recorder = _Recorder(model)
    handles = recorder.watch()
    try:
        example = recorder.begin(example)
        with torch.no_grad(), modes(model, training=False), torch.random.fork_rng(devices=[]), recorder:
            output = call_model(model, example)
        recorder.finish(output)
    finally:
        for handle in handles:
            handle.remove()
    return Graph(recorder.nodes)


def is_layer(module: nn.Module) -> bool:
    """Whether a module is a single node: one of torch or Poise that is no container."""
    home = type(module).__module__
    if not home.startswith(_FLAT) or isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        return False
    # Transformer blocks of torch are looked into; attention and recurrent layers are not.
    return not home.startswith("torch.nn.modules.transformer") and not home.startswith("torch.nn.parallel")


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_layer(m)


def _read(model: nn.Module) -> Graph:
    try:
        traced = _Tracer().trace(model)
    except Exception as error:  # whatever the model's own code raises when it meets a proxy
        raise ConfigError(
            f"{type(model).__name__} cannot be followed without running it: {str(error).splitlines()[0]}",
            repair="Give example=, a batch that the model can be called with.",
        ) from error
    modules = dict(model.named_modules(remove_duplicate=False))
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    nodes: list[Node] = []
    made: dict[fx.Node, Node] = {}
    for one in traced.nodes:
        if one.op == "get_attr":
            continue
        sources = one.all_input_nodes[:1] if one.target in LIKE_ANOTHER else one.all_input_nodes
        inputs = tuple(made[source] for source in sources if source in made)
        if one.op == "output":
            for source in inputs:
                source.is_output = True
            continue
        owner = next(reversed((one.meta.get("nn_module_stack") or {}).values()), ("", None))[0]
        node = Node(len(nodes), "input" if one.op == "placeholder" else "module", owner, inputs=inputs)
        if one.op == "call_module":
            node.name, node.module = str(one.target), modules[str(one.target)]
        elif one.op != "placeholder":
            node.op = one.target if isinstance(one.target, str) else _name_of(one.target)
            node.function = None if isinstance(one.target, str) else one.target
            node.parameters = tuple(str(each.target) for each in one.all_input_nodes if str(each.target) in parameters)
        node.arguments = (one.args, dict(one.kwargs))
        nodes.append(node)
        made[one] = node
        for source in inputs:
            source.users.append(node)
    return Graph(nodes)


class _Recorder(TorchFunctionMode):
    """Writes a node for every layer, and for every torch function outside layers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.nodes: list[Node] = []
        self._makers: dict[int, Node] = {}
        self._alive: list[Any] = []  # ids stay unique while what they name lives
        self._inside: list[str] = []
        self._layers = 0
        self._parameters = {id(one): name for name, one in model.named_parameters(remove_duplicate=False)}

    def watch(self) -> list[Any]:
        """Follow every module; the handles end that."""
        handles = []
        for name, module in self.model.named_modules():
            flat = is_layer(module)
            enter, leave = partial(self._enter, name, flat), partial(self._leave, flat)
            handles.append(module.register_forward_pre_hook(enter))
            # First of all hooks, so that what other hooks do with the output counts as what comes after the layer.
            handles.append(module.register_forward_hook(leave, with_kwargs=True, prepend=True))
        return handles

    def begin(self, example: Any) -> Any:
        """Name the tensors of `example` as inputs, each a tensor object of its own."""
        fresh = tree_map(lambda one: one.detach() if isinstance(one, Tensor) else one, example)
        for one in tensors_of(fresh):
            self._write(Node(0, "input", ""), [], one)
        return fresh

    def finish(self, output: Any) -> None:
        """Mark what the network returns."""
        for one in tensors_of(output):
            if id(one) in self._makers:
                self._makers[id(one)].is_output = True

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._layers:
            return func(*args, **kwargs)
        before = list(self._inputs(args[:1] if _name_of(func) in LIKE_ANOTHER else (args, kwargs)))
        output = func(*args, **kwargs)
        if tensors_of(output):
            if not _works_in_place(func):
                output = _own(output, (args, kwargs))
            name = self._inside[-1] if self._inside else ""
            node = Node(0, _name_of(func), name, function=func, arguments=(args, kwargs))
            self._write(node, before, output, (args, kwargs))
        return output

    def _enter(self, name: str, flat: bool, *_: Any) -> None:
        self._inside.append(name)
        self._layers += flat

    def _leave(self, flat: bool, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        if flat and self._layers == 1:
            output = _own(output, (args, kwargs))
            node = Node(0, "module", self._inside[-1], module=module, arguments=(args, kwargs))
            self._write(node, list(self._inputs((args, kwargs))), output)
        elif not self._layers and isinstance(output, Tensor) and id(output) in self._makers:
            self._makers[id(output)].returned_by.append(self._inside[-1])
        self._inside.pop()
        self._layers -= flat
        return output

    def _inputs(self, arguments: Any) -> Iterator[Node]:
        for one in tree_leaves(arguments):
            if isinstance(one, Tensor) and id(one) in self._makers:
                yield self._makers[id(one)]

    def _write(self, node: Node, inputs: list[Node], output: Any, arguments: Any = ()) -> None:
        outputs = tensors_of(output)
        node.index, node.inputs = len(self.nodes), tuple(inputs)
        node.parameters = tuple(
            self._parameters[id(one)]
            for one in tree_leaves(arguments)
            if isinstance(one, nn.Parameter) and id(one) in self._parameters
        )
        node.shape, node.dtype = (outputs[0].shape, outputs[0].dtype) if outputs else (None, None)
        self.nodes.append(node)
        self._alive.append((output, arguments))
        for one in inputs:
            if node not in one.users:
                one.users.append(node)
        for made in outputs:
            self._makers[id(made)] = node


def _own(output: Any, arguments: Any) -> Any:
    """`output`, with an object of its own where it is one of the arguments, as that of dropout in eval mode may be."""
    if isinstance(output, Tensor) and any(output is one for one in tree_leaves(arguments)):
        with torch._C.DisableTorchFunction():
            return output.view_as(output)
    return output


def _works_in_place(function: Any) -> bool:
    name = getattr(function, "__name__", "")
    return name in _IN_PLACE or (name.endswith("_") and not name.endswith("__"))


def _name_of(function: Any) -> str:
    name = getattr(function, "__name__", type(function).__name__)
    return name if name == "__get__" else name.strip("_")
