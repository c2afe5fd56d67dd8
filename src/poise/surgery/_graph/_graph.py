"""How tensors flow between the layers of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

# Operations that change where numbers lie and none of them.
_MOVES = {
    *("view", "reshape", "flatten", "unflatten", "contiguous", "permute", "transpose", "swapaxes", "movedim", "t", "T"),
    *("squeeze", "unsqueeze", "mT", "clone", "detach", "to", "float", "half", "bfloat16", "type_as", "view_as"),
    "reshape_as",
}  # fmt: skip

# Of their second tensor they take the shape or type alone.
LIKE_ANOTHER = {"reshape_as", "view_as", "expand_as", "type_as"}


@dataclass(eq=False)
class Node:
    """One operation of a pass.

    Args:
        index: Its place in the order of execution.
        op: "input", "module" for a layer that is not looked into, or the name of a torch function: "relu", "add", ...
        name: Path of the layer, or of the module in whose `forward` the function was called.
        module: The layer, for op "module".
        function: The torch function.
        inputs: Where its tensor arguments come from, those of the network's own parameters left out.
        parameters: Paths of the parameters among its arguments.
        shape: Of the first tensor it returns.
        dtype: Likewise.
        arguments: Those of the function, with tensors in them: for reading settings such as `p`.
        users: Who takes what it returns.
        is_output: Whether the network returns it.
        returned_by: Paths of the modules, other than layers, that return it as their only tensor, inner ones first.
    """

    index: int
    op: str
    name: str
    module: nn.Module | None = None
    function: Callable[..., Any] | None = None
    inputs: tuple[Node, ...] = ()
    parameters: tuple[str, ...] = ()
    shape: torch.Size | None = None
    dtype: torch.dtype | None = None
    arguments: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
    users: list[Node] = field(default_factory=list)
    is_output: bool = False
    returned_by: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        kind = type(self.module).__name__ if self.module is not None else self.op
        return f"<{self.index} {kind} {self.name!r} of {[one.index for one in self.inputs]}>"

    @property
    def moves(self) -> bool:
        """Whether it only reshapes or copies: no number changes."""
        return isinstance(self.module, nn.Identity | nn.Flatten | nn.Unflatten) or (self.op in _MOVES)


class Graph:
    """All operations of one pass in the order of execution.

    Args:
        nodes: In that order.
    """

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def calls_of(self, module: nn.Module) -> list[Node]:
        """Every call of a layer: more than one where it is shared."""
        return [node for node in self.nodes if node.module is module]

    def source(self, node: Node) -> Node | None:
        """Where the first input of `node` comes from, moves left out; None for the network's inputs."""
        while node.inputs:
            node = node.inputs[0]
            if not node.moves:
                return None if node.op == "input" else node
        return None

    def consumers(self, node: Node) -> list[Node]:
        """Who uses what `node` returns, moves left out. The network's output counts as no one: see `feeds_output`."""
        found: list[Node] = []
        for user in node.users:
            found.extend(self.consumers(user) if user.moves else [user])
        return found

    def feeds_output(self, node: Node) -> bool:
        """Whether the network returns what `node` returns, as it is or moved."""
        return node.is_output or any(user.moves and self.feeds_output(user) for user in node.users)

    def sole_consumer(self, node: Node) -> Node | None:
        """The only operation that uses what `node` returns; None where there are several or the network returns it."""
        found = self.consumers(node)
        return found[0] if len(found) == 1 and not self.feeds_output(node) else None
