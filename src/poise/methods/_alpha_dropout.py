"""Alpha dropout."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from poise._checks import Interval
from poise.functional.schedule import Strength, value_at
from poise.methods._bases import NetworkMethod, Site, strength
from poise.nn import AlphaDropout as AlphaDropoutLayer


@dataclass(frozen=True)
class AlphaDropout(NetworkMethod):
    """Lets each SELU activation saturate with probability p, then restores mean 0 and variance 1.

    y = a · (x · m + α' · (1 - m)) + b, m ~ Bernoulli(1 - p). In eval mode it is the identity.

    Args:
        p: Drop probability, in [0, 1), or a schedule. Search: [0, 0.2].

    Shape:
        Any shape in, the same out.

    Example:
        >>> from poise.methods import AlphaDropout, Site
        >>> AlphaDropout(p=0.1).layer(Site("hidden", 4))
        AlphaDropout(p=0.1)

    Reference: Klambauer et al., "Self-normalizing neural networks", NeurIPS 2017.
    """

    p: Strength = strength(0.1, Interval(0, 1, high_open=True), search=(0.0, 0.2))

    def layer(self, site: Site) -> nn.Module | None:
        return AlphaDropoutLayer(self.at(0.0).settings(site)["p"]) if site.kind == "hidden" else None

    def settings(self, site: Site) -> dict[str, float]:
        return {"p": value_at(self.p, 0.0)}
