"""Residual branches in the graph of a network."""

from __future__ import annotations

from dataclasses import replace

from poise.methods import Site
from poise.surgery._graph._graph import Graph, Node
from poise.surgery._graph._kinds import is_kernel
from poise.surgery._insertion._sites import Spot, layout_of, upstream_of

_ADDITIONS = ("add", "iadd")


def branch_spots(graph: Graph) -> list[Spot]:
    """A spot for the end of every residual branch, with its depth: 0 for the first and 1 for the last."""
    rows = next((node.shape[0] for node in graph if node.op == "input" and node.shape), None)
    ends: list[Node] = []
    for node in graph:
        end = _branch_of(node) if node.op in _ADDITIONS and len(node.inputs) == 2 else None
        if end is not None and end not in ends:
            ends.append(end)
    last = max(1, len(ends) - 1)
    return [_spot(end, number / last if len(ends) > 1 else 1.0, rows) for number, end in enumerate(ends)]


def _spot(end: Node, depth: float, rows: int | None) -> Spot:
    layout = layout_of(end)
    width = 0 if end.shape is None else end.shape[1 if layout == "maps" else -1]
    # Rows that were dealt into windows or time steps are no rows of the batch, which DropPath would drop one by one.
    refusal = "" if end.shape is None or end.shape[0] == rows else "its first axis is not that of the batch"
    return Spot(replace(Site("branch", width, depth), layout=layout), end, refusal)  # type: ignore[arg-type]


def _branch_of(addition: Node) -> Node | None:
    """Of the two values that are added, the one that has passed more kernels since both were one; None if neither."""
    one, other = addition.inputs
    if one.shape is not None and one.shape != other.shape:
        return None
    before_one, before_other = ({each, *upstream_of([each])} for each in (one, other))
    # A mask or a table of positions has no past in common with what it is added to, but for the network's inputs.
    shared = {node for node in before_one & before_other if node.op != "input" or _is_real(node)}
    if not shared:
        return None
    kernels_one, kernels_other = (sum(map(is_kernel, part - shared)) for part in (before_one, before_other))
    if kernels_one == kernels_other:
        return None
    return one if kernels_one > kernels_other else other


def _is_real(node: Node) -> bool:
    return node.dtype is None or node.dtype.is_floating_point
