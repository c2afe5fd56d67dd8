"""Telling the normalizations of a network to which domain its rows belong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from poise.nn._batch_norm import BatchNorm


@contextmanager
def use_domain(model: nn.Module, domain: int | Tensor) -> Iterator[None]:
    """Within it, every BatchNorm of `model` that keeps domains takes its rows as of `domain`.

    Args:
        model: Any; called as ever.
        domain: In [0, K), one for all rows, or one for each row, (N,).

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(3, 4), BatchNorm(4, num_domains=2))
        >>> with use_domain(model, 1):
        ...     _ = model(torch.randn(8, 3))
        >>> model[1].domain_batches_tracked
        tensor([0, 1])
    """
    layers = [one for one in model.modules() if isinstance(one, BatchNorm) and one.num_domains]
    before = [layer.domain for layer in layers]
    try:
        for layer in layers:
            layer.domain = domain
        yield
    finally:
        for layer, old in zip(layers, before, strict=True):
            layer.domain = old
