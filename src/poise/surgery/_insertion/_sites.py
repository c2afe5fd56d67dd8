"""Where regularizing layers may go in the graph of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from torch import nn

from poise.methods import Site
from poise.surgery._graph._graph import Graph, Node
from poise.surgery._graph._kinds import (
    SEVERAL_OUTPUTS,
    has_features_last,
    is_activation,
    is_dropout,
    is_kernel,
    is_norm,
    takes_norm,
)


@dataclass(frozen=True)
class Place:
    """Where a layer can be attached: after the module at a path, or before it."""

    where: str
    before: bool = False


@dataclass(frozen=True, eq=False)
class Spot:
    """A site in a graph.

    Args:
        site: As methods see it.
        node: What it returns is what a layer there changes.
        refusal: Why no layer goes there; "" for none.
        kernel: For a norm, the layer whose output is normalized.
        present: For a norm, the one that is there already.
    """

    site: Site
    node: Node
    refusal: str = ""
    kernel: Node | None = None
    present: Node | None = None


def origin(node: Node) -> Node:
    """Where the numbers of `node` come from: itself, unless it only moves or picks them."""
    while node.inputs and (node.moves or node.op == "getitem"):
        node = node.inputs[0]
    return node


def takers(node: Node) -> list[Node]:
    """Who computes with what `node` returns, moves and picks left out."""
    found: list[Node] = []
    for user in node.users:
        for one in takers(user) if user.moves or user.op == "getitem" else [user]:
            if one not in found:
                found.append(one)
    return found


def upstream_of(nodes: Iterable[Node]) -> set[Node]:
    """Everything that any of `nodes` depends on, without themselves."""
    found: set[Node] = set()
    waiting = [one for node in nodes for one in node.inputs]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(node.inputs)
    return found


def chain_of(node: Node) -> list[Node]:
    """`node` and what it comes from through moves and picks, up to where its numbers are made."""
    chain = [node]
    while chain[-1] is not origin(node):
        chain.append(chain[-1].inputs[0])
    return chain


def places_of(graph: Graph, node: Node, *, elementwise: bool) -> list[Place]:
    """Where a layer can be attached so that it changes what `node` returns, best first.

    Args:
        graph: That `node` is of.
        node: Any.
        elementwise: Whether the layer treats all elements alike, so that a reshaped value will do.
    """

    def fits(value: Node) -> bool:
        if value is node or elementwise:
            return True
        return node.shape is not None and value.shape == node.shape and not _is_turned(value, node)

    chain = chain_of(node)
    layers = [one for one in chain if one.module is not None and not isinstance(one.module, SEVERAL_OUTPUTS)]
    found = [Place(one.name) for one in layers if fits(one)]
    users = takers(node)
    if len(users) == 1 and not graph.feeds_output(node):
        user = users[0]
        # A hook before a module changes its first argument, if that is given by position.
        given = [origin(one) for one in user.inputs]
        is_only = given[:1] == [origin(node)] and given.count(given[0]) == 1
        if user.module is not None and user.arguments[0] and is_only and fits(user.inputs[0]):
            found.append(Place(user.name, before=True))
    returned = [one for one in (*chain, *_moved(node)) if fits(one)]
    names = dict.fromkeys(name for one in returned for name in one.returned_by if name)
    return found + [Place(name) for name in names]


def touched_by(graph: Graph, place: Place) -> set[Node]:
    """Where every value that a layer at `place` would change is made: several if a module is called several times."""
    layers = [node for node in graph if node.module is not None and node.name == place.where]
    if layers:
        return {origin(node.inputs[0] if place.before else node) for node in layers}
    return {origin(node) for node in graph if place.where in node.returned_by}


def norm_spots(graph: Graph) -> list[Spot]:
    """A spot for every kernel that feeds an activation, and one for every other normalization that is there.

    Where most normalizations of the network follow activations, the new ones do so, too.
    """
    after = _norms_follow_activations(graph)
    found: list[Spot] = []
    for node in graph:
        kernel, present = _before_activation(graph, node) if is_activation(node) else (None, None)
        if kernel is None or any(kernel is one.kernel for one in found):
            continue
        present = present or next(_through(node, _is_light, is_norm), None)
        refusal = "" if present else _why_not_normalized(graph, kernel)
        target = node if after else kernel
        found.append(Spot(_site("norm", target), target, refusal, kernel, present))
    known = {one.present for one in found}
    extra = [node for node in graph if is_norm(node) and node not in known]
    return found + [Spot(_site("norm", node), node, present=node) for node in extra]


def hidden_spots(graph: Graph) -> list[Spot]:
    """A spot for every activation, and for every recurrent layer."""
    found: dict[Node, Spot] = {}
    for node in graph:
        if is_activation(node):
            value = _whole_activation(graph, node)
            found.setdefault(value, Spot(_site("hidden", value), value, _why_not_dropped(value)))
    return list(found.values())


def input_spots(graph: Graph) -> list[Spot]:
    """A spot for every floating input of the network."""
    found = []
    for node in graph:
        if node.op == "input" and node.users:
            is_real = node.dtype is None or node.dtype.is_floating_point
            refusal = "" if is_real else "its input holds no real numbers"
            found.append(Spot(_site("input", node), node, refusal))
    return found


def dropout_after(node: Node) -> Node | None:
    """The dropout that what `node` returns passes before the next kernel, if any."""
    return next(_through(node, _is_light, is_dropout), None)


def layout_of(node: Node) -> str:
    """Where the features of what `node` returns lie: in "rows", "maps" or a "sequence"."""
    last: bool | None = None
    one: Node | None = node
    while one is not None and last is None:
        last = has_features_last(one)
        one = one.inputs[0] if one.inputs else None
    if node.shape is None:
        return "maps" if last is False else "rows"
    if len(node.shape) <= 2:
        return "rows"
    return "maps" if last is False else "sequence"


def _site(kind: str, node: Node) -> Site:
    layout = layout_of(node)
    axis = 1 if layout == "maps" else -1
    width = node.shape[axis] if node.shape else _declared_width(node)
    return Site(kind, width, layout=layout)  # type: ignore[arg-type]


def _declared_width(node: Node) -> int:
    """Number of features by the nearest layer that says so; 0 if none does."""
    one: Node | None = node
    while one is not None:
        for name in ("out_features", "out_channels", "num_features", "hidden_size", "embedding_dim"):
            if isinstance(width := getattr(one.module, name, None), int):
                return width
        one = one.inputs[0] if one.inputs else None
    return 0


def _norms_follow_activations(graph: Graph) -> bool:
    sources = [graph.source(node) for node in graph if is_norm(node)]
    after = sum(source is not None and is_activation(source) for source in sources)
    return after > len(sources) - after


def _before_activation(graph: Graph, node: Node) -> tuple[Node | None, Node | None]:
    """The kernel that feeds an activation, and the norm between the two."""
    source, norm = graph.source(node), None
    if source is not None and is_norm(source):
        source, norm = graph.source(source), source
    return (source, norm) if source is not None and takes_norm(source) else (None, None)


def _why_not_normalized(graph: Graph, kernel: Node) -> str:
    if graph.sole_consumer(kernel) is None:
        return "its output goes several ways"
    source = origin(kernel.inputs[0])
    while is_dropout(source):
        source = origin(source.inputs[0])
    if is_norm(source):
        return "its input is normalized already"
    if kernel.shape is not None and layout_of(kernel) == "maps" and kernel.shape[2:].numel() == 1:
        return "its maps have a single position, as those of a gate"
    return ""


def _why_not_dropped(node: Node) -> str:
    if node.is_output or any(_through(node, _is_close, lambda one: one.is_output and _is_close(one))):
        return "it is next to the output"
    return ""


def _whole_activation(graph: Graph, node: Node) -> Node:
    """What a module returns that is nothing but this activation, written as a formula; else `node` itself."""
    if node.module is not None or not node.name:
        return node
    inside = [one for one in graph if one.name == node.name or one.name.startswith(f"{node.name}.")]
    if any(is_kernel(one) or is_norm(one) or one.parameters for one in inside):
        return node
    return next((one for one in inside if node.name in one.returned_by and one.index >= node.index), node)


def _is_light(node: Node) -> bool:
    """Whether layout and meaning of numbers stay: moves, dropout and pooling."""
    pools = isinstance(node.module, nn.Module) and type(node.module).__name__.endswith(("Pool1d", "Pool2d", "Pool3d"))
    return node.moves or node.op == "getitem" or is_dropout(node) or pools or "pool" in node.op or node.op == "mean"


def _is_close(node: Node) -> bool:
    name = node.op if node.module is None else type(node.module).__name__.lower()
    return _is_light(node) or name in ("softmax", "log_softmax", "logsoftmax", "sigmoid")


def _through(node: Node, passes: Callable[[Node], bool], wanted: Callable[[Node], bool]) -> Iterator[Node]:
    """The users of `node` that are `wanted`, also behind those that `passes` lets through."""
    seen: set[Node] = set()
    waiting = list(node.users)
    while waiting:
        one = waiting.pop(0)
        if one in seen:
            continue
        seen.add(one)
        if wanted(one):
            yield one
        if passes(one):
            waiting.extend(one.users)


def _moved(node: Node) -> Iterator[Node]:
    """Everything that is `node` moved."""
    for user in node.users:
        if user.moves:
            yield user
            yield from _moved(user)


def _is_turned(one: Node, other: Node) -> bool:
    """Whether axes may have changed places between two values of which one is the other moved."""
    later, earlier = (one, other) if one.index > other.index else (other, one)
    while later is not earlier and later.inputs:
        if later.op in ("permute", "transpose", "swapaxes", "movedim", "t", "T", "mT"):
            return True
        later = later.inputs[0]
    return False
