"""One mask for all rows makes a pass a smaller network: kept units only, (1 - p)² of the work of a linear layer."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from poise._random import Key
from poise.ensemble._chain import Act, Affine, Chain, Drop
from poise.ensemble._gather import submatrix

_PASSES = 64  # whose masks are drawn together; part of what a seed means


@dataclass(frozen=True)
class Stage:
    """A linear layer, or the values that enter the chain, with what follows up to the next linear layer."""

    affine: Affine | None
    steps: tuple[Drop | Act, ...]
    num_features: int

    @property
    def drops(self) -> tuple[Drop, ...]:
        """Its dropouts."""
        return tuple(step for step in self.steps if isinstance(step, Drop))


@dataclass(frozen=True)
class Masks:
    """The kept features of a stage for some passes, and the scale of each of its dropouts; None where all are kept."""

    kept: tuple[Tensor, ...] | None
    scales: tuple[float, ...]


class SubNetworks:
    """The passes of a chain, in the layout (features, rows), in which units are gathered as whole lines of memory.

    Args:
        chain: The network.
        x: (B, ...) its input.
        key: Names the masks.
    """

    def __init__(self, chain: Chain, x: Tensor, key: Key) -> None:
        rows = chain.entry(x)
        start = next(i for i, step in enumerate(chain.steps) if isinstance(step, Drop))
        for step in chain.steps[:start]:
            if isinstance(step, Act):
                rows = step.function(rows.t().clone(), None).t()
        self._rows, self._key = rows, key
        self.stages = tuple(_stages(chain.steps[start:], rows.shape[1]))

    @cached_property
    def _values(self) -> Tensor:
        return self._rows.t().contiguous()

    @property
    def num_outputs(self) -> int:
        """Numbers that a pass returns."""
        return self.stages[-1].num_features * len(self._rows)

    def exact(self) -> tuple[Tensor, Tensor] | None:
        """Mean and variance of the output in closed form; None where dropout comes before more than a linear layer.

        With y = W (h ∘ m) / (1 - p) + b: mean W h + b, variance p / (1 - p) · (W ∘ W)(h ∘ h).
        """
        if len(self.stages) != 2 or len(self.stages[0].steps) != 1 or self.stages[1].steps:
            return None
        affine, p = self.stages[1].affine, self.stages[0].drops[0].p
        if affine is None:
            return None
        mean = functional.linear(self._rows, affine.weight, affine.bias)
        return mean, functional.linear(self._rows.square(), affine.weight.square()).mul_(p / (1 - p))

    def outputs(self, first: int, last: int) -> Tensor:
        """(S, B, C): what passes `first` to `last` - 1 return."""
        found: list[Tensor] = []
        with _workers(self._values, last - first) as pool:
            while first < last:
                end = min(last, (first // _PASSES + 1) * _PASSES)
                masks = self.masks(first // _PASSES)
                rows = [number % _PASSES for number in range(first, end)]
                if pool is None:
                    found.extend(self.run(masks, row) for row in rows)
                else:
                    found.extend(pool.map(lambda row, masks=masks: self.run(masks, row), rows))
                first = end
        return torch.stack(found).transpose(1, 2)

    def masks(self, part: int) -> list[Masks]:
        """Of each stage, for the passes of a part."""
        dtype = torch.float64 if self._rows.dtype == torch.float64 else torch.float32
        drawn, site = [], 0
        for stage in self.stages:
            together, scales = None, []
            for drop in stage.drops:
                stream = self._key.stream("mask", site).at(part)
                mask = stream.keep_mask(_PASSES, stage.num_features, p=drop.p, dtype=dtype)
                scales.append(float(mask.max()) or 1.0)
                together = mask if together is None else together * mask
                site += 1
            kept = None
            if together is not None:
                keep = together.numpy() > 0
                # Ten times as fast as `nonzero` of numbers.
                features = torch.from_numpy(np.flatnonzero(keep) % stage.num_features).to(self._rows.device)
                kept = torch.split(features, keep.sum(1).tolist())
            drawn.append(Masks(kept, tuple(scales)))
        return drawn

    @torch.no_grad()
    def run(self, masks: list[Masks], row: int) -> Tensor:
        """(C, B): one pass, that of `row` of the masks."""
        values, before, alpha = self._values, None, 1.0
        for stage, mask in zip(self.stages, masks, strict=True):
            kept = None if mask.kept is None else mask.kept[row]
            if stage.affine is not None:
                values, alpha = _linear(stage.affine, values, before, kept, alpha), 1.0
            elif kept is not None:
                values = values.index_select(0, kept)
            scales = iter(mask.scales)
            for step in stage.steps:
                if isinstance(step, Drop):
                    alpha *= next(scales)  # left to the next product, which takes a factor for nothing
                else:
                    values, alpha = step.function(values if alpha == 1 else values.mul_(alpha), kept), 1.0
            before = kept
        return values


def _stages(steps: tuple[Drop | Act | Affine, ...], num_features: int) -> Iterator[Stage]:
    affine: Affine | None = None
    inside: list[Drop | Act] = []
    for step in steps:
        if isinstance(step, Affine):
            yield Stage(affine, tuple(inside), num_features)
            affine, inside, num_features = step, [], len(step.weight)
        else:
            inside.append(step)
    yield Stage(affine, tuple(inside), num_features)


def _linear(affine: Affine, values: Tensor, before: Tensor | None, kept: Tensor | None, alpha: float) -> Tensor:
    weight, bias = submatrix(affine.weight, kept, before), affine.bias
    if bias is None:
        return weight @ values if alpha == 1 else (weight @ values).mul_(alpha)
    bias = bias.unsqueeze(1)
    return torch.addmm(bias if kept is None else bias.index_select(0, kept), weight, values, alpha=alpha)


@contextmanager
def _workers(values: Tensor, passes: int) -> Iterator[ThreadPoolExecutor | None]:
    """Threads that each make whole passes on one core: small products do not gain from several."""
    threads = torch.get_num_threads()
    if values.device.type != "cpu" or threads == 1 or passes == 1:
        yield None
        return
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)
