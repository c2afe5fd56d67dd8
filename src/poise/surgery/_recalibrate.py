"""Exact population statistics for batch normalization."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from poise.nn import BatchNorm, NormActDropout

BatchNormLayer = BatchNorm | NormActDropout | nn.modules.batchnorm._BatchNorm
_KINDS = (BatchNorm, NormActDropout, nn.modules.batchnorm._BatchNorm)


class _Reached(Exception):  # noqa: N818 - not an error: it ends a forward pass at the layer of interest
    """The forward pass has reached the layer whose input is wanted."""


class _Moments:
    """Count, mean and sum of squared deviations per channel, merged batch by batch in float64 (Chan et al. 1979)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros((), dtype=torch.float64)
        self.squares = torch.zeros((), dtype=torch.float64)

    def add(self, x: Tensor) -> None:
        values = x.detach().to(torch.float64).transpose(0, 1).flatten(1)
        var, mean = torch.var_mean(values, dim=1, correction=0)
        count = values.shape[1]
        total = self.count + count
        shift = mean - self.mean
        self.squares = self.squares + var * count + shift.square() * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total

    def store(self, layer: BatchNormLayer) -> None:
        for buffer, value in ((layer.running_mean, self.mean), (layer.running_var, self.squares / self.count)):
            if buffer is not None:
                buffer.copy_(value)


@torch.no_grad()
def recalibrate(network: nn.Module, batches: Sequence[Any]) -> Any:
    """Set every batch normalization to the exact mean and population variance of its input over all rows.

    Layer after layer in the order of execution: each sees inputs that passed the layers before it with their final
    statistics, in eval mode, so dropout is off and a short last batch counts as what it is (law of total variance).
    The result equals one forward pass over all rows at once. With a single batch, one pass does all layers.

    Args:
        network: Modes and parameters are left as they were.
        batches: What the network is called with, over all rows. Each is given as the only argument.

    Returns:
        The eval-mode output for the single batch; None where there are several.

    Reference: Wu and Johnson, "Rethinking 'batch' in BatchNorm", 2021 (precise BN).

    Example:
        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.BatchNorm1d(1, affine=False))
        >>> rows = torch.tensor([[0.0], [2.0], [4.0]])
        >>> _ = recalibrate(network, [rows[:2], rows[2:]])
        >>> network[0].running_mean.item(), round(network[0].running_var.item(), 4)
        (2.0, 2.6667)
    """
    with _eval_mode(network):
        if len(batches) == 1:
            return _in_one_pass(network, batches[0])
        for layer in _layers_in_order(network, batches[0]):
            _measure(network, layer, batches).store(layer)
    return None


def _in_one_pass(network: nn.Module, batch: Any) -> Any:
    def hook(layer: BatchNormLayer, args: tuple[Tensor]) -> None:
        moments = _Moments()
        moments.add(args[0])
        moments.store(layer)

    with _hooked(_batch_norms(network), hook):
        return network(batch)


def _layers_in_order(network: nn.Module, batch: Any) -> list[BatchNormLayer]:
    order: dict[BatchNormLayer, None] = {}
    with _hooked(_batch_norms(network), lambda layer, _: order.setdefault(layer)):
        network(batch)
    return list(order)


def _measure(network: nn.Module, layer: BatchNormLayer, batches: Sequence[Any]) -> _Moments:
    moments = _Moments()

    def hook(_: BatchNormLayer, args: tuple[Tensor]) -> None:
        moments.add(args[0])
        raise _Reached

    with _hooked([layer], hook):
        for batch in batches:
            try:
                network(batch)
            except _Reached:
                continue
    return moments


def _batch_norms(network: nn.Module) -> list[BatchNormLayer]:
    return [layer for layer in network.modules() if isinstance(layer, _KINDS) and layer.running_mean is not None]


@contextmanager
def _hooked(layers: list[BatchNormLayer], hook: Callable[[Any, Any], None]) -> Iterator[None]:
    handles = [layer.register_forward_pre_hook(hook) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _eval_mode(network: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
