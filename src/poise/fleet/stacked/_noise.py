"""The random numbers of layers that are stacked: drawn before the pass, each as its own layer would."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from poise._random import Key
from poise.fleet.stacked._fuse import Chain
from poise.kernels.cpu._draw import keep_masks, normals
from poise.kernels.reference import LANES, TILE_BLOCKS
from poise.nn._stochastic import Drawn, fresh_key

Supply = list[tuple[Tensor, ...]]
"""For each pass through a layer its numbers (V, ...) and strengths (V,), or what names the numbers (V,)."""
_DTYPES = {torch.float32: np.float32, torch.float64: np.float64}


def drawn_layers(network: nn.Module) -> list[Drawn]:
    """The layers of `network` that draw, in the order of their names."""
    return [layer for layer in network.modules() if isinstance(layer, Drawn)]


@torch.no_grad()
def shapes_seen(network: nn.Module, layers: Sequence[Drawn], inputs: Any) -> list[list[tuple[torch.Size, torch.dtype]]]:
    """Shape and dtype of each input that each of `layers` gets when `network` reads `inputs`."""
    modes = {module: module.training for module in network.modules()}
    seen: list[list[tuple[torch.Size, torch.dtype]]] = [[] for _ in layers]
    handles = [
        layer.register_forward_pre_hook(lambda _, args, found=found: found.append((args[0].shape, args[0].dtype)))
        for layer, found in zip(layers, seen, strict=True)
    ]
    try:
        network.eval()(inputs)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return seen


def draw(
    layers: Sequence[Drawn], passes: Sequence[tuple[torch.Size, torch.dtype]], device: torch.device, *, named: bool
) -> Supply:
    """What the same layer of every variant needs for its next passes; the layers' steps go on by as many.

    Args:
        layers: One for each variant.
        passes: Shape and dtype of the input of each pass.
        device: Where the numbers are wanted.
        named: Whether to give key, step, strength and activity, from which a kernel makes the numbers.
    """
    for layer in layers:
        if layer.key is None and layer.is_active():
            layer.key = fresh_key()
    strengths = np.array([layer.strength for layer in layers], dtype=np.float64)
    supply: Supply = []
    for shape, dtype in passes:
        made = _names(layers, strengths) if named else (_numbers(layers, shape, dtype, strengths), strengths)
        supply.append(tuple(torch.as_tensor(one, device=device) for one in made))
        # A pass without noise does not count, as in a layer by itself; a layer that fills two places counts once.
        for layer in dict.fromkeys(layers):
            layer.step += int(layer.is_active())
    return supply


def _numbers(layers: Sequence[Drawn], shape: torch.Size, dtype: torch.dtype, strengths: Any) -> Tensor:
    first, keys = layers[0], [layer.key or Key(0) for layer in layers]
    if dtype not in _DTYPES:
        pairs = zip(layers, keys, strict=True)
        return torch.stack([layer.noise(shape, key.at(layer.step), dtype) for layer, key in pairs])
    numbers = torch.empty((len(layers), *first.noise_shape(shape)), dtype=dtype)
    rows = numbers.view(len(layers), -1).numpy()
    seeds, steps = _seeds_and_steps(layers)
    if first.draws == "keep":
        keep_masks(rows, seeds, steps, strengths, np.empty(TILE_BLOCKS * LANES, rows.dtype))
    else:
        normals(rows, seeds, steps, strengths, np.empty(rows.shape[1] + 4, np.uint32))
    return numbers


def _names(layers: Sequence[Drawn], strengths: Any) -> tuple[Any, ...]:
    """Key and step in two's complement, strength, and whether it is above zero."""
    seeds, steps = _seeds_and_steps(layers)
    return seeds.view(np.int64), steps.view(np.int64), strengths, strengths > 0


def _seeds_and_steps(layers: Sequence[Drawn]) -> Any:
    seeds = np.array([0 if layer.key is None else layer.key.seed for layer in layers], dtype=np.uint64)
    return seeds, np.array([layer.step for layer in layers], dtype=np.uint64)


@contextmanager
def supplied(layers: Sequence[Drawn | Chain], supplies: Sequence[Supply]) -> Iterator[None]:
    """Within it, each of `layers` takes its numbers from its supply."""
    for layer, supply in zip(layers, supplies, strict=True):
        layer.supply = iter(supply)
    try:
        yield
    finally:
        for layer in layers:
            layer.supply = None
