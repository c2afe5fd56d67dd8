"""The random numbers of layers that are stacked: drawn before the pass, each as its own layer would."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from poise.fleet.stacked._fuse import Chain
from poise.kernels.cpu._draw import keep_masks, normals
from poise.kernels.reference import LANES, TILE_BLOCKS
from poise.nn._stochastic import Drawn, fresh_key

Supply = list[tuple[Tensor, ...]]
"""For each pass through a layer its numbers (V, ...) and strengths (V,), or what names the numbers (V,)."""
_DTYPES = (torch.float32, torch.float64)


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


class Draws(NamedTuple):
    """What names the random numbers of one layer of every variant.

    Shape:
        seeds: (V,) uint64, of the layers' keys.
        steps: (V,) uint64.
        strengths: (V,) float64; where it is zero nothing is drawn.
    """

    seeds: NDArray[np.uint64]
    steps: NDArray[np.uint64]
    strengths: NDArray[np.float64]


def draws_of(layers: Sequence[Drawn]) -> Draws:
    """What the layers themselves would draw next; a layer without a key takes one."""
    for layer in layers:
        if layer.key is None and layer.is_active():
            layer.key = fresh_key()
    return Draws(
        np.array([0 if layer.key is None else layer.key.seed for layer in layers], dtype=np.uint64),
        np.array([layer.step for layer in layers], dtype=np.uint64),
        np.array([layer.strength for layer in layers], dtype=np.float64),
    )


def draw(
    layer: Drawn, draws: Draws, passes: Sequence[tuple[torch.Size, torch.dtype]], device: torch.device, *, named: bool
) -> Supply:
    """What one layer of all variants needs for its next passes.

    Args:
        layer: Says what is drawn.
        draws: For the first pass; later ones are of the steps that follow.
        passes: Shape and dtype of the input of each pass.
        device: Where the numbers are wanted.
        named: Whether to give key, step, strength and activity, from which a kernel makes the numbers.
    """
    supply: Supply = []
    active = draws.strengths > 0
    for shape, dtype in passes:
        if named:
            made: tuple[Any, ...] = (draws.seeds.view(np.int64), draws.steps.view(np.int64), draws.strengths, active)
        else:
            made = (_numbers(layer, draws, shape, dtype), draws.strengths)
        supply.append(tuple(torch.as_tensor(one, device=device) for one in made))
        draws = draws._replace(steps=draws.steps + active.astype(np.uint64))
    return supply


def _numbers(layer: Drawn, draws: Draws, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    computed = dtype if dtype in _DTYPES else torch.float64
    numbers = torch.empty((len(draws.seeds), *layer.noise_shape(shape)), dtype=computed)
    rows = numbers.view(len(draws.seeds), -1).numpy()
    if layer.draws == "keep":
        keep_masks(rows, *draws, np.empty(TILE_BLOCKS * LANES, rows.dtype))
    else:
        normals(rows, *draws, np.empty(rows.shape[1] + 4, np.uint32))
    return numbers.to(dtype)


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
