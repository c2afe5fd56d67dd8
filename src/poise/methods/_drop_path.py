"""Stochastic depth."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from poise._checks import Interval
from poise.functional.schedule import Strength, value_at
from poise.methods._bases import NetworkMethod, Site, strength
from poise.nn import DropPath as DropPathLayer


@dataclass(frozen=True)
class DropPath(NetworkMethod):
    """Skips the residual branch of each row with probability p_l = p · l / (L - 1), block l of 0 … L - 1.

    y_i = x_i · m_i / (1 - p_l), m_i ~ Bernoulli(1 - p_l) for row i; a single block has p_l = p. In eval mode it is the
    identity.

    Args:
        p: Drop probability of the last block, in [0, 1), or a schedule. Search: [0, 0.3].

    Shape:
        (B, ...) in, the same out.

    Example:
        >>> from poise.methods import DropPath, Site
        >>> DropPath(p=0.2).layer(Site("branch", 4, depth=0.5))
        DropPath(p=0.1)

    Reference: Huang et al., "Deep networks with stochastic depth", ECCV 2016.
    """

    p: Strength = strength(0.1, Interval(0, 1, high_open=True), search=(0.0, 0.3))

    def layer(self, site: Site) -> nn.Module | None:
        return DropPathLayer(self.at(0.0).settings(site)["p"]) if site.kind == "branch" else None

    def settings(self, site: Site) -> dict[str, float]:
        return {"p": value_at(self.p, 0.0) * site.depth}
