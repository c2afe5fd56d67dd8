"""Gaussian noise on the inputs."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from poise._checks import Interval
from poise.functional.schedule import Strength, value_at
from poise.methods._bases import NetworkMethod, Site, strength
from poise.nn import GaussianNoise as GaussianNoiseLayer


@dataclass(frozen=True)
class GaussianNoise(NetworkMethod):
    """Adds noise to the encoded features, y = x + std · ε, ε ~ N(0, 1). In eval mode it is the identity.

    Args:
        std: Standard deviation in units of the scaled features, ≥ 0, or a schedule. Search: [0, 0.3].

    Shape:
        Any shape in, the same out.

    Example:
        >>> from poise.methods import GaussianNoise, Site
        >>> GaussianNoise(std=0.1).layer(Site("input", 4))
        GaussianNoise(std=0.1)

    Reference: Bishop, "Training with noise is equivalent to Tikhonov regularization", Neural Computation 7, 1995.
    """

    std: Strength = strength(0.1, Interval(0), search=(0.0, 0.3))

    def layer(self, site: Site) -> nn.Module | None:
        return GaussianNoiseLayer(self.at(0.0).settings(site)["std"]) if site.kind == "input" else None

    def settings(self, site: Site) -> dict[str, float]:
        return {"std": value_at(self.std, 0.0)}
