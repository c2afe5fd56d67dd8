"""Which channel of one layer becomes which channel of a later one, when only moves lie between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from poise.surgery._graph._graph import Node

_CASTS = {"to", "float", "half", "bfloat16", "type_as"}
_VIEWS = {"view": "reshape", "view_as": "reshape_as"}  # what was a view of one layout need not be one of another


def moves_between(later: Node, earlier: Node) -> list[Node]:
    """The moves from `earlier` to the first input of `later`, in the order of execution."""
    found: list[Node] = []
    node = later.inputs[0]
    while node is not earlier:
        found.append(node)
        node = node.inputs[0]
    return found[::-1]


def channels_after(shape: Sequence[int], axis: int, moves: Sequence[Node]) -> Tensor | None:
    """For each element after `moves` its index along `axis` of the tensor before; None where they do not fit."""
    index = torch.arange(shape[axis]).view(-1, *([1] * (-axis - 1 if axis < 0 else len(shape) - axis - 1)))
    index = index.expand(tuple(shape)).contiguous()
    try:
        for move in moves:
            index = _again(move, index)
    except (RuntimeError, TypeError, ValueError, IndexError):  # whatever torch says of a move that does not fit
        return None
    return index


def as_map(keys: Tensor, values: Tensor, size: int) -> Tensor | None:
    """m with m[keys] = values, of `size` entries; None where a key has two values, or none."""
    values = values.expand_as(keys).flatten()
    keys = keys.flatten()
    found = torch.full((size,), -1)
    found[keys] = values
    return found if bool((found[keys] == values).all()) and bool((found >= 0).all()) else None


def _again(move: Node, index: Tensor) -> Any:
    if move.module is not None:
        return move.module(index)
    if move.op in _CASTS:
        return index
    args, kwargs = move.arguments
    if move.op in _VIEWS:
        return getattr(index, _VIEWS[move.op])(*args[1:])
    if move.function is None:
        raise TypeError(move.op)
    return move.function(index, *args[1:], **kwargs)
