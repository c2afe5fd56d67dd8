"""Dropout."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from poise._checks import Interval
from poise.functional.schedule import Strength, value_at
from poise.methods._bases import NetworkMethod, Site, strength, structural
from poise.nn import ChannelDropout
from poise.nn import Dropout as DropoutLayer

_PROBABILITY = Interval(0, 1, high_open=True)


@dataclass(frozen=True)
class Dropout(NetworkMethod):
    """Zeroes each activation with probability p in training and scales the others by 1 / (1 - p).

    y = x · m / (1 - p), m ~ Bernoulli(1 - p). In eval mode it is the identity. Maps of a convolution have one m for
    each channel of each row.

    Args:
        p: Drop probability of hidden activations, in [0, 1), or a schedule. Search: [0, 0.6].
        input_p: Drop probability of encoded input features, in [0, 1), or a schedule. Search: [0, 0.3].
        where: "auto" places hidden dropout only where no batch normalization lies downstream, since the change of
            variance between training and eval would mislead its statistics; "all" places it after every activation.

    Shape:
        Any shape in, the same out.

    Example:
        >>> from poise.methods import Dropout
        >>> Dropout(p=0.5).at(0.3).p
        0.5

    Reference: Srivastava et al., "Dropout", JMLR 15, 2014. Li et al., "Understanding the disharmony between dropout
    and batch normalization", CVPR 2019.
    """

    p: Strength = strength(0.5, _PROBABILITY, search=(0.0, 0.6))
    input_p: Strength = strength(0.0, _PROBABILITY, search=(0.0, 0.3))
    where: str = structural("auto", choices=("auto", "all"))

    def layer(self, site: Site) -> nn.Module | None:
        placed = {
            "input": self.input_p != 0,
            "hidden": self.where == "all" or not site.before_batch_norm,
        }
        kind = ChannelDropout if site.layout == "maps" else DropoutLayer
        return kind(self.at(0.0).settings(site)["p"]) if placed.get(site.kind) else None

    def settings(self, site: Site) -> dict[str, float]:
        return {"p": value_at(self.input_p if site.kind == "input" else self.p, 0.0)}
