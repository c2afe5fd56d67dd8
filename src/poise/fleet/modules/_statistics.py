"""Statistics of batch normalizations over all training rows, in one pass, for a model or a stack of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from poise.functional.population import Population
from poise.surgery._freeze import is_frozen
from poise.surgery._recalibration._statistics import BatchNormLayer, batch_norms, given_to, statistics_of, store

Moments = dict[str, tuple[Tensor, Tensor]]


def moving_norms(model: nn.Module) -> dict[str, BatchNormLayer]:
    """The batch normalizations of a model in training whose statistics move, by path."""
    names = {layer: name for name, layer in model.named_modules()}
    return {names[one]: one for one in batch_norms(model) if one.training and not is_frozen(one)}


def moments_of(layers: Mapping[str, BatchNormLayer], run: Callable[[], Any], counts: dict[str, int]) -> Moments:
    """Mean and sum of squares (`Population`) of what each of `layers` is given for a batch, in eval mode.

    Each layer normalizes the batch by the batch's own statistics, as in training.

    Args:
        layers: Of `moving_norms`.
        run: Lets the model read the batch, in eval mode.
        counts: Gets the number of values of each layer that is reached.
    """
    names = {layer: name for name, layer in layers.items()}
    found: dict[str, Population] = {}

    def see(layer: BatchNormLayer, x: Tensor, _: Any) -> None:
        name, moments = names[layer], Population.of(x)
        if moments.count > 1:  # a single value has no variance
            store(layer, moments)
        found[name] = found[name].merged(moments) if name in found else moments

    with given_to(list(layers.values()), see):
        run()
    counts.clear()
    counts.update({name: one.count for name, one in found.items()})
    return {name: (one.mean, one.squares) for name, one in found.items()}


class Pool:
    """Moments of many batches as those of one."""

    def __init__(self) -> None:
        self.totals: dict[str, Population] = {}

    def add(self, moments: Moments, counts: Mapping[str, int]) -> None:
        """Take in those of another batch."""
        for name, (mean, squares) in moments.items():
            one = Population(counts[name], mean, squares)
            self.totals[name] = self.totals[name].merged(one) if name in self.totals else one

    def items(self) -> list[tuple[str, Tensor, Tensor]]:
        """Path, mean and population variance of each layer that was given more than one value."""
        return [(name, one.mean, one.var) for name, one in self.totals.items() if one.count > 1]


def buffer_names(model: nn.Module, layers: Mapping[str, BatchNormLayer]) -> dict[str, tuple[str, str]]:
    """The names by which `named_buffers` knows mean and variance of each layer."""
    names = {id(one): name for name, one in model.named_buffers()}
    pairs = {path: statistics_of(layer) for path, layer in layers.items()}
    return {path: (names[id(mean)], names[id(var)]) for path, (mean, var) in pairs.items()}
