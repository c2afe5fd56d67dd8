"""Batch normalization."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from poise._checks import Interval
from poise.methods._bases import NetworkMethod, Site, structural
from poise.nn import BatchNorm as BatchNormLayer


@dataclass(frozen=True)
class BatchNorm(NetworkMethod):
    """Normalizes each hidden feature over the batch, y = (x - mean) / sqrt(var + eps) · weight + bias.

    In eval mode mean and variance are those of the whole training set, computed exactly after every epoch.

    Args:
        momentum: Weight of the new batch in the running statistics, in [0, 1].
        eps: Added to the variance, > 0.
        affine: Whether weight and bias exist.
        ghost_size: Rows of a ghost batch with statistics of its own, 0 for the whole batch. Search: [16, 256].

    Shape:
        (B, D) or maps (B, D, ...) in, the same out; sequences (B, T, D) have none.

    Example:
        >>> from poise.methods import BatchNorm, Site
        >>> BatchNorm().layer(Site("norm", 4))
        BatchNorm(4, eps=1e-05, momentum=0.1)

    Reference: Ioffe and Szegedy, "Batch normalization", ICML 2015.
    """

    momentum: float = structural(0.1, interval=Interval(0, 1))
    eps: float = structural(1e-5, interval=Interval(0, low_open=True))
    affine: bool = structural(True)
    ghost_size: int = structural(0, interval=Interval(0))

    def layer(self, site: Site) -> nn.Module | None:
        # Positions of a sequence are no rows: their statistics would mix padding and neighbors.
        if site.kind != "norm" or site.layout == "sequence":
            return None
        return BatchNormLayer(
            site.num_features, eps=self.eps, momentum=self.momentum, affine=self.affine, ghost_size=self.ghost_size
        )
