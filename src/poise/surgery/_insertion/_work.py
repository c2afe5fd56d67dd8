"""What an insertion has come to so far: edits, and what could not be placed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from torch import nn

from poise.methods import NetworkMethod, Site
from poise.surgery._edit import Assign, Edit
from poise.surgery._graph._graph import Node


@dataclass(frozen=True)
class Note:
    """Something that a recipe asks for and that is not done, or needs no change.

    Args:
        where: Path of the module it is about.
        text: A clause with the reason.
    """

    where: str
    text: str


@dataclass(frozen=True, eq=False)
class Placed:
    """A layer whose attributes follow the strengths of a method.

    Args:
        method: Which.
        site: As the method sees it.
        where: Path of the layer once it is there.
        module: The layer.
        attribute: What the layer calls the strength, if not as the method does.
    """

    method: NetworkMethod
    site: Site
    where: str
    module: nn.Module
    attribute: str = ""

    def set_progress(self, progress: float) -> None:
        """Give the layer the strengths that its method has at `progress`, in [0, 1]."""
        for name, value in self.method.at(progress).settings(self.site).items():
            setattr(self.module, self.attribute or name, value)


@dataclass
class Work:
    """Edits, and what is worth saying besides.

    Args:
        by_position: Whether the network's first argument is given by position.
        behind: Nodes with a batch normalization downstream.
        edits: In order.
        placed: Layers that are new, and those that were there and get the method's strength.
        notes: What is not done.
        found: Classes of the methods that have found a place, or what they would do.
    """

    by_position: bool = True
    behind: set[Node] = field(default_factory=set)
    edits: list[Edit] = field(default_factory=list)
    placed: list[Placed] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    found: set[type[NetworkMethod]] = field(default_factory=set)

    def seen(self, site: Site, node: Node) -> Site:
        """`site`, with what is known of the normalizations behind `node`."""
        return replace(site, before_batch_norm=node in self.behind)

    def note(self, method: NetworkMethod, where: str, text: str) -> None:
        """Say that `method` is not placed at `where`."""
        self.notes.append(Note(where, f"skipped {type(method).__name__}: {text}"))

    def keep(self, method: NetworkMethod, where: str, text: str) -> None:
        """Say that what `method` would do is there already."""
        self.found.add(type(method))
        self.notes.append(Note(where, f"kept: {text}"))

    def configure(
        self, method: NetworkMethod, site: Site, where: str, module: nn.Module, attribute: str, *, shift: float = 0.0
    ) -> None:
        """Give what is there already the strength of `method`, in place of its own."""
        self.found.add(type(method))
        value = method.at(0.0).settings(site)["p"]
        if getattr(module, attribute) != value:
            why = f"{type(method).__name__}: set, not stacked on what is there"
            self.edits.append(Assign(where, why, shift, attribute, value))
        else:
            self.notes.append(Note(where, f"kept: {attribute} is {value} already"))
        self.placed.append(Placed(method, site, where, module, attribute))


def why_no_layer(method: NetworkMethod, site: Site) -> str | None:
    """Why `method` has no layer at `site`; None where it has none at sites of that kind."""
    if method.layer(replace(site, before_batch_norm=False)) is not None:
        return "a batch normalization lies downstream, whose statistics it would mislead"
    if method.layer(replace(site, layout="rows")) is not None:
        return "the features of a sequence lie on the last axis, and its positions are no rows"
    return None


def summarize(notes: Iterable[Note]) -> list[Note]:
    """One note for each reason, at the first place, with the number of places."""
    places: dict[str, list[str]] = {}
    for note in notes:
        places.setdefault(note.text, []).append(note.where)
    return [
        Note(where[0], text if len(where) == 1 else f"{text} (and {len(where) - 1} more places)")
        for text, where in places.items()
    ]
