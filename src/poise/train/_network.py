"""The tabular network of a recipe, with the recipe's layers at their sites."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from poise._random import Key
from poise.data import Encoder
from poise.methods import BatchNorm, NetworkMethod, Site
from poise.nn import SiteKind, TabularNetwork, TabularShape, assign_keys
from poise.recipe import Recipe
from poise.train._task import Task


@dataclass
class BuiltNetwork:
    """A network and the inserted layers whose strengths follow a schedule."""

    network: nn.Module
    scheduled: list[tuple[NetworkMethod, Site, nn.Module]] = field(default_factory=list)

    def set_progress(self, progress: float) -> None:
        """Give every scheduled layer the strength that its method has at `progress`."""
        for method, site, layer in self.scheduled:
            for name, value in method.at(progress).settings(site).items():
                setattr(layer, name, value)


def build_network(
    recipe: Recipe, encoder: Encoder, task: Task, *, key: Key | None = None, dtype: torch.dtype = torch.float32
) -> BuiltNetwork:
    """The network that `recipe` describes, with initial weights and masks named by `key`.

    Args:
        recipe: Supplies structure and network methods.
        encoder: Supplies the number of inputs, the categories and the bins.
        task: Supplies the number of outputs.
        key: Root of the random numbers; None where weights are loaded afterwards.
        dtype: Of the weights.
    """
    key = key or Key(0)
    scheduled: list[tuple[NetworkMethod, Site, nn.Module]] = []

    def layers(kind: SiteKind, num_features: int, index: int) -> nn.Module | None:
        site = _site(recipe, kind, num_features, index)
        found = []
        for method in recipe.of(NetworkMethod):
            layer = method.layer(site)
            if layer is not None:
                found.append(layer)
                scheduled.extend([(method, site, layer)] if method.is_scheduled else [])
        return found[0] if len(found) == 1 else nn.Sequential(*found) if found else None

    network = TabularNetwork(
        network_shape(recipe, encoder, dtype), task.num_outputs, structure=recipe.network.structure, layers=layers,
        average=task.average, key=key.stream("init"),
    ).to(dtype)  # fmt: skip
    assign_keys(network, key)
    return BuiltNetwork(network, scheduled)


def network_shape(recipe: Recipe, encoder: Encoder, dtype: torch.dtype = torch.float32) -> TabularShape:
    """What the network of `recipe` reads of a table that `encoder` encodes, with bins in `dtype`."""
    spec, bins = recipe.network, None if encoder.bins is None else encoder.bins.to(dtype)
    return TabularShape(
        encoder.num_continuous, encoder.num_numeric, encoder.cardinalities, bins, spec.embedding_dim,
        spec.num_frequencies, spec.frequency_scale, spec.periodic_dim,
    )  # fmt: skip


def _site(recipe: Recipe, kind: SiteKind, num_features: int, index: int) -> Site:
    depth, normalized = recipe.network.depth, recipe.get(BatchNorm) is not None
    is_last = index == depth - 1
    # In a plain block the norm comes first, so only what follows the last block is behind every norm. A residual
    # block's own norm comes before its dropout as well, and the stream reaches the norm of the next block.
    follows = normalized and (kind == "input" or not is_last)
    # A single block is the last one: it gets all of a strength that grows with depth.
    return Site(kind, num_features, index / (depth - 1) if depth > 1 else 1.0, follows)
