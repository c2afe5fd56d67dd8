"""From the network methods of a recipe and a graph to the edits that put them into the network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import nn

from poise.methods import NetworkMethod
from poise.nn import BatchNorm
from poise.surgery._edit import Assign, Attach
from poise.surgery._graph._graph import Graph, Node
from poise.surgery._graph._kinds import is_batch_norm
from poise.surgery._insertion._branches import branch_spots
from poise.surgery._insertion._existing import dropout_edits, is_functional_dropout, norm_edits, path_edits
from poise.surgery._insertion._sites import (
    Place,
    Spot,
    dropout_after,
    hidden_spots,
    input_spots,
    norm_spots,
    origin,
    places_of,
    touched_by,
    upstream_of,
)
from poise.surgery._insertion._work import Note, Placed, Work, why_no_layer

_WHY = {
    "input": "noise on the input",
    "norm": "between kernel and activation",
    "hidden": "after the last normalization, not next to the output",
    "branch": "at the end of the branch, linear in depth",
}
# Rounding of a normalization by mean 0 and variance 1, relative to the output, in units of the type's own.
_ROUNDINGS = 1000


def plan(methods: Sequence[NetworkMethod], model: nn.Module, graph: Graph, *, by_position: bool) -> Work:
    """What puts `methods` into `model`, whose graph is `graph`; nothing is changed yet.

    Args:
        methods: In the order of a recipe.
        model: As it is.
        graph: Of it.
        by_position: Whether the model is called with its first argument by position.
    """
    work = Work(by_position=by_position)
    spots = norm_spots(graph)
    behind = [node for node in graph if is_batch_norm(node)]
    for method in methods:
        norm_edits(method, spots, work)
        absent = [spot for spot in spots if spot.present is None]
        behind.extend(
            node for node, layer in _attach(method, absent, model, graph, work) if isinstance(layer, BatchNorm)
        )
    work.behind = upstream_of(behind)
    hidden, branches, inputs = hidden_spots(graph), branch_spots(graph), input_spots(graph)
    for method in methods:
        dropout_edits(method, graph, work)
        _attach(method, _free(hidden, method, work), model, graph, work)
        replaced = path_edits(method, branches, model, work)
        _attach(method, [spot for spot in branches if spot.node not in replaced], model, graph, work)
        _attach(method, inputs, model, graph, work)
    return work


def _attach(
    method: NetworkMethod, spots: Iterable[Spot], model: nn.Module, graph: Graph, work: Work
) -> list[tuple[Node, nn.Module]]:
    """Plan a layer of `method` at each of `spots` that takes one; where a module is called several times, just one.

    Returns:
        Every value that changes, with the layer that changes it.
    """
    wanted: dict[Node, tuple[Spot, nn.Module]] = {}
    for one in spots:
        is_norm = one.site.kind == "norm"
        spot = one if is_norm else replace(one, site=work.seen(one.site, one.node))
        layer = method.layer(spot.site) if spot.site.num_features or not is_norm else None
        refusal = spot.refusal if layer is not None else _why_none(method, spot)
        if refusal:
            work.note(method, spot.node.name, refusal)
        elif layer is not None:
            wanted[spot.node] = (spot, layer)
    made: list[tuple[Node, nn.Module]] = []
    done: set[Node] = set()
    for node, (spot, layer) in wanted.items():
        if origin(node) in done:
            continue
        place, together = _place(node, list(wanted.values()), graph, work)
        done.update(origin(one.node) for one in together)
        # A module that is called several times has one layer, of the strength that its calls have on average.
        depth = sum(one.site.depth for one in together) / len(together)
        shared = replace(spot, site=replace(spot.site, depth=depth)) if len(together) > 1 else spot
        chosen = layer if shared is spot else method.layer(shared.site)
        if place is None or chosen is None:
            work.note(method, node.name, "no module returns this value alone, or is the only one to take it")
        elif not _acts(method, shared):
            work.keep(method, node.name, f"the strength of {type(method).__name__} is 0 here")
        else:
            _plan_layer(method, shared, chosen, place, model, work)
            made.extend((one.node, chosen) for one in together)
    return made


def _place(
    node: Node, wanted: Sequence[tuple[Spot, nn.Module]], graph: Graph, work: Work
) -> tuple[Place | None, list[Spot]]:
    """Where a layer for `node` is attached, and all spots that it then serves."""
    spots = {origin(spot.node): spot for spot, _ in wanted}
    own = spots[origin(node)]
    elementwise = own.site.kind == "input" or (own.site.kind == "hidden" and own.site.layout != "maps")
    for place in places_of(graph, node, elementwise=elementwise):
        touched = touched_by(graph, place)
        if touched <= set(spots):
            return place, [spots[one] for one in spots if one in touched]
    is_first = node.op == "input" and node.index == 0 and work.by_position
    return (Place("", before=True) if is_first else None), [own]


def _acts(method: NetworkMethod, spot: Spot) -> bool:
    strengths = method.at(0.0).settings(spot.site).values()
    return method.is_scheduled or not strengths or any(strengths)


def _why_none(method: NetworkMethod, spot: Spot) -> str | None:
    if spot.site.kind == "norm" and not spot.site.num_features:
        return "its number of features is not known without example="
    return why_no_layer(method, spot.site)


def _plan_layer(
    method: NetworkMethod, spot: Spot, layer: nn.Module, place: Place, model: nn.Module, work: Work
) -> None:
    host = model.get_submodule(place.where)
    like = next((one for one in (*host.parameters(), *model.parameters()) if one.is_floating_point()), None)
    if like is not None:
        layer.to(like.device, like.dtype)
    layer.train(host.training)
    shift = 0.0
    if isinstance(layer, BatchNorm):
        # Mean 0 and variance 1 with eps in it: until a batch has passed in training, nothing changes in eval mode.
        layer.running_var.fill_(1 - layer.eps)
        shift = _ROUNDINGS * torch.finfo(layer.running_var.dtype).eps
        _fold_bias(spot, place, layer, model, work)
    elif any(True for _ in layer.parameters()) or spot.site.kind == "norm":
        shift = float("inf")  # it normalizes in eval mode as well, which is what it is for
    name = "poise_" + re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(method).__name__).lower()
    text = "after the activation, as elsewhere here" if spot.kernel is not None and spot.node is not spot.kernel else ""
    why = f"{type(method).__name__}: {text or _WHY[spot.site.kind]}"
    work.edits.append(Attach(place.where, why, shift, layer, name, place.before))
    work.placed.append(Placed(method, spot.site, f"{place.where}.{name}".lstrip("."), layer))
    work.found.add(type(method))


def _fold_bias(spot: Spot, place: Place, norm: BatchNorm, model: nn.Module, work: Work) -> None:
    """Plan to take away a bias that the normalization would remove again; its running mean takes the bias over."""
    kernel = spot.kernel
    if kernel is None or kernel.module is None or spot.node is not kernel or place != Place(kernel.name):
        return
    bias = kernel.module._parameters.get("bias")
    if bias is None:
        return
    owners = sum(one is bias for module in model.modules() for one in module._parameters.values())
    if owners > 1 or not bias.requires_grad:
        work.notes.append(_kept_bias(kernel.name, "tied" if owners > 1 else "frozen"))
        return
    with torch.no_grad():
        norm.running_mean.copy_(-bias)
    work.edits.append(Assign(kernel.name, "BatchNorm: it would remove the bias again", 0.0, "bias", None))


def _kept_bias(where: str, state: str) -> Note:
    return Note(where, f"kept: the bias before the new normalization is {state}; it has no effect in training")


def _free(spots: Iterable[Spot], method: NetworkMethod, work: Work) -> list[Spot]:
    """The spots behind which nothing drops yet."""
    free = []
    for spot in spots:
        present = dropout_after(spot.node)
        if present is None:
            free.append(spot)
        elif not is_functional_dropout(present) and not _is_known(present, work) and method.layer(spot.site):
            work.note(method, present.name, f"{type(present.module).__name__} drops there")
    return free


def _is_known(node: Node, work: Work) -> bool:
    return any(one.module is node.module for one in work.placed) or any(one.where == node.name for one in work.notes)
