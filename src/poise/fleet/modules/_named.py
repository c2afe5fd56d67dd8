"""Torch's dropouts as layers whose random numbers have names."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from poise._random import Key
from poise.nn import AlphaDropout, ChannelDropout, Dropout, Stochastic

_LAYERS: dict[type[nn.Module], Callable[[float], Stochastic]] = {
    nn.Dropout: Dropout,
    nn.Dropout1d: ChannelDropout,
    nn.Dropout2d: ChannelDropout,
    nn.Dropout3d: ChannelDropout,
    nn.AlphaDropout: AlphaDropout,
}


def name_dropouts(model: nn.Module) -> None:
    """Put a layer of `poise.nn`, with the same p, in the place of each dropout of torch, in place.

    One that works in place, has hooks, or drops everything stays: something may depend on what is special about it.
    """
    made: dict[nn.Module, nn.Module] = {}
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            layer = _LAYERS.get(type(child))
            # Private in torch, and the only common base of its dropouts.
            if layer is None or not isinstance(child, nn.modules.dropout._DropoutNd) or child.inplace or child.p >= 1:
                continue
            if child._forward_hooks or child._forward_pre_hooks:
                continue
            if child not in made:
                made[child] = layer(float(child.p)).train(child.training)
            setattr(parent, name, made[child])


def stochastic_layers(model: nn.Module) -> dict[str, Stochastic]:
    """Every layer of `poise.nn` in `model` that draws, by path."""
    return {name: one for name, one in model.named_modules() if isinstance(one, Stochastic)}


def name_streams(model: nn.Module, key: Key, *, but: set[str]) -> None:
    """Give a stream of its own to every layer that draws, except those at the paths `but`, which have one."""
    for name, layer in stochastic_layers(model).items():
        if name not in but:
            layer.key, layer.step = key.stream("mask", name), 0
