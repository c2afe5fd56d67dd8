"""Batch normalizations of a network, what they are given, and the statistics they keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from poise.functional.population import Population
from poise.nn import BatchNorm, NormActDropout
from poise.surgery._modes import modes

BatchNormLayer = BatchNorm | NormActDropout | nn.modules.batchnorm._BatchNorm
BATCH_NORMS = (BatchNorm, NormActDropout, nn.modules.batchnorm._BatchNorm)


class Reached(BaseException):
    """Ends a forward pass at the layer of interest; no `except Exception` in a model may hold it up."""


def batch_norms(network: nn.Module) -> list[BatchNormLayer]:
    """Every batch normalization that keeps running statistics, once."""
    return [layer for layer in network.modules() if isinstance(layer, BATCH_NORMS) and layer.running_mean is not None]


def statistics_of(layer: BatchNormLayer, domain: int | None = None) -> tuple[Tensor, Tensor]:
    """Mean and variance that normalize in eval mode: of one domain, or of all where None, as they lie in the layer."""
    if isinstance(layer, BatchNorm) and layer.num_domains:
        mean, var = layer.domain_mean, layer.domain_var
        return (mean, var) if domain is None else (mean[domain], var[domain])
    # The buffers of a layer that keeps statistics are tensors; torch's types do not know.
    return layer.running_mean, layer.running_var  # type: ignore[return-value]


def store(layer: BatchNormLayer, moments: Population, domain: int | None = None) -> None:
    """Make the population mean and variance those that normalize in eval mode."""
    mean, var = statistics_of(layer, domain)
    mean.copy_(moments.mean)
    var.copy_(moments.var)


@contextmanager
def given_to(layers: Sequence[BatchNormLayer], see: Callable[[Any, Tensor, dict[str, Any]], None]) -> Iterator[None]:
    """Within it `see(layer, x, keywords)` hears of each call of `layers`, after all hooks that may change it."""

    def hook(layer: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        see(layer, args[0] if args else next(iter(keywords.values())), keywords)

    handles = [layer.register_forward_pre_hook(hook, with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def recalibrate_outputs(network: nn.Module, batches: Sequence[Any]) -> Any:
    """`recalibrate` for a training loop, also under `torch.vmap`: rows are known to be finite and nothing is reported.

    Args:
        network: Each batch is its only argument.
        batches: All rows.

    Returns:
        The eval-mode output for a single batch, for which one pass does all layers; None where there are several.
    """
    layers = batch_norms(network)
    with modes(network, training=False):
        if len(batches) == 1:
            with given_to(layers, lambda layer, x, _: store(layer, Population.of(x))):
                return network(batches[0])
        order: dict[BatchNormLayer, None] = {}
        with given_to(layers, lambda layer, *_: order.setdefault(layer)):
            network(batches[0])
        for layer in order:
            store(layer, _moments_at(network, layer, batches))
    return None


def _moments_at(network: nn.Module, layer: BatchNormLayer, batches: Sequence[Any]) -> Population:
    found: list[Population] = []

    def see(_: BatchNormLayer, x: Tensor, __: dict[str, Any]) -> None:
        found.append(Population.of(x))
        raise Reached

    with given_to([layer], see):
        for batch in batches:
            try:
                network(batch)
            except Reached:
                continue
    total = found[0]
    for moments in found[1:]:
        total = total.merged(moments)
    return total
