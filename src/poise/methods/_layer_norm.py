"""Layer normalization."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from poise._checks import Interval
from poise.methods._bases import NetworkMethod, Site, structural
from poise.nn import LayerNorm as LayerNormLayer


@dataclass(frozen=True)
class LayerNorm(NetworkMethod):
    """Normalizes each row over its hidden features, y = (x - mean) / sqrt(var + eps) · weight + bias.

    The same in training and eval mode. Maps of a convolution are normalized over channels and positions.

    Args:
        eps: Added to the variance, > 0.
        affine: Whether weight and bias exist.

    Shape:
        (B, D), (B, T, D) or maps (B, D, ...) in, the same out.

    Example:
        >>> from poise.methods import LayerNorm, Site
        >>> LayerNorm().layer(Site("norm", 4))
        LayerNorm(4, eps=1e-05)

    Reference: Ba, Kiros, Hinton, "Layer normalization", 2016.
    """

    eps: float = structural(1e-5, interval=Interval(0, low_open=True))
    affine: bool = structural(True)

    def layer(self, site: Site) -> nn.Module | None:
        if site.kind != "norm":
            return None
        if site.layout == "maps":
            return nn.GroupNorm(1, site.num_features, eps=self.eps, affine=self.affine)
        return LayerNormLayer(site.num_features, eps=self.eps, affine=self.affine)
