"""Functions of tensors that stay where they are: recorded once, then run as a bare list of torch operators."""

from __future__ import annotations

import operator
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from poise._errors import PoiseWarning
from poise.kernels import ops
from poise.kernels.cpu._bound import Run

_aten = torch.ops.aten
_UNMARKED_VIEWS = {_aten._unsafe_view.default}  # a view that its schema does not tell
# What they make depends on shapes alone.
_CONSTANTS = {
    _aten.full.default, _aten.ones.default, _aten.zeros.default, _aten.scalar_tensor.default, _aten.arange.default,
    _aten.full_like.default, _aten.ones_like.default, _aten.zeros_like.default, _aten.new_full.default,
    _aten.new_ones.default, _aten.new_zeros.default,
}  # fmt: skip


class Tapes:
    """Runs functions as they are until one has been called often; then from a tape.

    Args:
        after: Calls before a function is recorded, which takes as long as some hundred calls.
    """

    def __init__(self, after: int = 64) -> None:
        self.after = after
        self._calls: Counter[Hashable] = Counter()
        self._tapes: dict[Hashable, Run] = {}

    def __call__(self, name: Hashable, function: Callable[[Any], None], tensors: Any) -> None:
        """Do what function(tensors) does.

        Args:
            name: Of the function with these tensors, until `forget`.
            function: Changes some of the tensors and returns nothing; its Python does the same in each call.
            tensors: In lists, tuples and dicts, the very same in each call.
        """
        tape = self._tapes.get(name)
        if tape is not None:
            tape()
        elif self._calls[name] < self.after:
            self._calls[name] += 1
            function(tensors)
        else:
            self._tapes[name] = record(function, tensors)

    def forget(self) -> None:
        """Have functions recorded anew, since tensors have moved."""
        self._tapes.clear()


def moved_to(places: Any, tensors: Any) -> bool:
    """Copy tensors to where others lie, if these are as many, and of the same shapes, dtypes and devices."""
    old, new = (tree_leaves(one) for one in (places, tensors))
    kinds = [[(one.shape, one.dtype, one.device) for one in ones if one is not None] for ones in (old, new)]
    if kinds[0] != kinds[1]:
        return False
    for place, tensor in zip(old, new, strict=True):
        place.copy_(tensor)
    return True


def record(function: Callable[[Any], None], tensors: Any) -> Run:
    """Call `function` once, and return what does the same again without its Python, autograd and `torch.func.vmap`.

    It runs the same operators in the same order, to the same bits. On a CPU all that they make has its place in memory
    from now on, so that views are taken once, now. On a GPU they become one CUDA graph.

    Args:
        function: As for `Tapes`.
        tensors: Likewise.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    leaves, spec = tree_flatten(tensors)

    def flat(*leaves: Tensor) -> None:
        function(tree_unflatten(list(leaves), spec))

    traced = make_fx(flat)(*leaves)
    traced.graph.eliminate_dead_code(is_impure_node=_writes)
    if not any(one.is_cuda for one in leaves):
        return _Tape(traced, leaves)
    for node in traced.graph.nodes:
        node.target = ops.KERNELS.get(node.target, node.target)
    traced.recompile()
    return _graph(partial(traced.forward, *leaves))


def _writes(node: fx.Node) -> bool:
    """Whether a node does more than return something."""
    target: Any = node.target
    return node.op in ("placeholder", "output") or (_is_operator(node) and target._schema.is_mutable)


def _is_operator(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload)


def _graph(run: Run) -> Run:
    """`run` as a CUDA graph; it has run before, so that libraries are set up."""
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            run()
    except RuntimeError as error:
        warnings.warn(f"The training step cannot be one CUDA graph: {error}", PoiseWarning, stacklevel=2)
        return run
    return graph.replay


class _Tape:
    """The operators of a graph, in its order, with their arguments and the memory for what they make.

    Args:
        traced: What was recorded; what it returns is not wanted.
        tensors: That it reads and changes.
    """

    def __init__(self, traced: fx.GraphModule, tensors: Sequence[Tensor]) -> None:
        graph = traced.graph
        self._runs: list[Run] = []
        self._memory = _Memory()
        values: dict[fx.Node, Any] = {}
        given = iter(tensors)
        roots, ends = _lives(graph)
        changed = {roots[node] for node in graph.nodes if _is_operator(node) and _written(node.target) is not None}
        for number, node in enumerate(graph.nodes):
            self._memory.release(number)
            if node.op == "placeholder":
                values[node] = next(given)
            elif node.op == "get_attr":
                values[node] = operator.attrgetter(str(node.target))(traced)
            elif node.op == "call_function":
                args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
                is_constant = node.target in _CONSTANTS and node not in changed
                end = ends[roots[node]]
                values[node] = node.target(*args, **kwargs) if is_constant else self._value(node, args, kwargs, end)

    def __call__(self) -> None:
        for run in self._runs:
            run()

    def _value(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any], end: int) -> Any:
        """What a node makes, or where it will lie; whatever has to run each time is added to the list."""
        target: Any = node.target
        if target is operator.getitem:
            return args[0][args[1]]
        written = _written(target)
        if written is not None:
            self._runs += ops.BOUND[target](*args) if target in ops.BOUND else [partial(target, *args, **kwargs)]
            return _argument(written, args, kwargs)
        if _is_view(target):
            return target(*args, **kwargs)
        likes = node.meta["val"]
        made = tree_map(lambda like: self._memory.take(like, end) if isinstance(like, Tensor) else None, likes)
        places = tree_leaves(made)
        if target in ops.BOUND:
            self._runs += ops.BOUND[target](*args, out=places)
            return made
        into = None if any(one is None for one in places) else _out_form(target)
        if into is None:
            self._runs.append(partial(_copy, places, partial(target, *args, **kwargs)))
        else:
            form, names = into
            self._runs.append(partial(form, *args, **kwargs, **dict(zip(names, places, strict=True))))
        return made


class _Memory:
    """Memory of what is made and read on a tape; what is read no more makes room for what comes."""

    def __init__(self) -> None:
        self._free: dict[int, list[Tensor]] = defaultdict(list)
        self._ends: dict[int, list[Tensor]] = defaultdict(list)

    def release(self, number: int) -> None:
        """Node `number` is next: take back what is read only before it."""
        for block in self._ends.pop(number - 1, ()):
            self._free[block.nbytes].append(block)

    def take(self, like: Tensor, end: int) -> Tensor:
        """A place for a tensor that is read until node `end`, with shape, strides and dtype of `like`."""
        reach = 1 + sum((size - 1) * stride for size, stride in zip(like.shape, like.stride(), strict=True))
        size = max(reach, 1) * like.dtype.itemsize
        free = self._free[size]
        block = free.pop() if free else torch.empty(size, dtype=torch.uint8)
        self._ends[end].append(block)
        return torch.as_strided(block.view(like.dtype), like.shape, like.stride())


def _lives(graph: fx.Graph) -> tuple[dict[fx.Node, fx.Node], dict[fx.Node, int]]:
    """In whose memory each node's results lie, and the number of the last node that reads there."""
    roots: dict[fx.Node, fx.Node] = {}
    ends: dict[fx.Node, int] = {}
    for number, node in enumerate(graph.nodes):
        source = _source(node)
        roots[node] = node if source is None else roots[source]
        for one in (node, *node.all_input_nodes):
            ends[roots[one]] = number
    return roots, ends


def _source(node: fx.Node) -> fx.Node | None:
    """The node whose memory this one has, if it has none of its own."""
    if node.target is operator.getitem:
        return node.all_input_nodes[0]
    if node.op != "call_function" or not _is_operator(node):
        return None
    written = _written(node.target)
    if written is None and not _is_view(node.target):
        return None
    source = _argument(written or (0, "self"), node.args, node.kwargs)
    return source if isinstance(source, fx.Node) else None


@cache
def _written(target: Any) -> tuple[int, str] | None:
    """Number and name of the argument that an operator changes and returns."""
    for number, argument in enumerate(target._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            return number, argument.name
    return None


def _argument(which: tuple[int, str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    number, name = which
    return args[number] if number < len(args) else kwargs[name]


@cache
def _is_view(target: Any) -> bool:
    returns = target._schema.returns
    return target in _UNMARKED_VIEWS or any(one.alias_info is not None for one in returns)


@cache
def _out_form(target: Any) -> tuple[Any, list[str]] | None:
    """The form of an operator that writes to given tensors, and what it calls them."""
    wanted = [(one.name, str(one.type)) for one in target._schema.arguments]
    for name in target.overloadpacket.overloads():
        form = getattr(target.overloadpacket, name)
        arguments = form._schema.arguments
        names = [one.name for one in arguments if one.is_out]
        if names and [(one.name, str(one.type)) for one in arguments if not one.is_out] == wanted:
            return form, names
    return None


def _copy(places: Sequence[Tensor | None], make: Run) -> None:
    for place, made in zip(places, tree_leaves(make()), strict=True):
        if place is not None:
            place.copy_(made)
