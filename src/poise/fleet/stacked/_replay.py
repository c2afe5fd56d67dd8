"""Functions of tensors that are called again and again: recorded once, then replayed without Python's part."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from poise._errors import PoiseWarning
from poise.kernels import ops

Function = Callable[..., Any]
_VIEWS = {torch.ops.aten.view.default, torch.ops.aten.permute.default, torch.ops.aten.expand.default}


class Replays:
    """Runs functions as they are until one has been called often with tensors of the same shapes; then replays it.

    A replay does what torch's operators did in the recorded call, in the same order and to the same bits; gone are
    `torch.func.vmap`, autograd and the modules' own Python, which cost a small network more than its arithmetic. On a
    GPU the operators become one CUDA graph.

    Args:
        after: Calls before a function is recorded, which takes as long as some hundred calls.
    """

    def __init__(self, after: int = 64) -> None:
        self.after = after
        self._calls: Counter[Hashable] = Counter()
        self._recorded: dict[Hashable, Function] = {}

    def __call__(self, name: Hashable, function: Function, *args: Any) -> Any:
        """What `function` makes of `args`.

        Args:
            name: Of the function; one name stands for one function.
            function: Of tensors in lists, tuples and dicts, which it does not change; its Python does the same in each
                call.
            args: Its arguments.
        """
        key = (name, tuple(one.shape for one in tree_leaves(args)))
        replay = self._recorded.get(key)
        if replay is not None:
            return replay(*args)
        self._calls[key] += 1
        if self._calls[key] <= self.after:
            return function(*args)
        self._recorded[key] = record(function, args)
        return self._recorded[key](*args)


def record(function: Function, args: tuple[Any, ...]) -> Function:
    """`function` as a list of torch operators, for arguments of these shapes.

    Args:
        function: Of tensors in lists, tuples and dicts.
        args: An example.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    tensors, spec = tree_flatten(args)
    made: list[Any] = []

    def flat(*tensors: Tensor) -> list[Tensor]:
        outputs, shape = tree_flatten(function(*tree_unflatten(list(tensors), spec)))
        made[:] = [shape]
        return outputs

    traced = make_fx(flat)(*tensors)
    _tidy(traced)
    run: Function = traced.forward
    if any(one.is_cuda for one in tensors):
        run = _captured(run, tensors)

    def replay(*args: Any) -> Any:
        return tree_unflatten(run(*tree_leaves(args)), made[0])

    return replay


def _tidy(traced: fx.GraphModule) -> None:
    """Leave out views that change nothing, and call kernels directly."""
    for node in traced.graph.nodes:
        if node.op != "call_function":
            continue
        node.target = ops.KERNELS.get(node.target, node.target)
        if node.target in _VIEWS:
            source = node.args[0]
            before, after = source.meta.get("tensor_meta"), node.meta.get("tensor_meta")
            if before is not None and after is not None and _is_same(before, after):
                node.replace_all_uses_with(source)
    traced.graph.eliminate_dead_code(is_impure_node=_writes)
    traced.recompile()


def _is_same(before: Any, after: Any) -> bool:
    return bool(before.shape == after.shape and before.stride == after.stride)


def _writes(node: fx.Node) -> bool:
    """Whether a node does more than return something."""
    if node.op in ("placeholder", "output"):
        return True
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _captured(run: Function, tensors: list[Any]) -> Function:
    """`run` as a CUDA graph, whose inputs are copied into tensors of its own."""
    own = [one.clone() for one in tensors]
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call] # torch's own has no types
    side.wait_stream(torch.cuda.current_stream())
    try:
        with torch.cuda.stream(side):
            for _ in range(3):  # libraries and Triton set themselves up in the first calls
                run(*own)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = run(*own)
    except RuntimeError as error:
        warnings.warn(f"The training step cannot be one CUDA graph: {error}", PoiseWarning, stacklevel=2)
        return run

    def replay(*tensors: Any) -> Any:
        for mine, given in zip(own, tensors, strict=True):
            mine.copy_(given)
        graph.replay()
        return [one.clone() for one in outputs]

    return replay
