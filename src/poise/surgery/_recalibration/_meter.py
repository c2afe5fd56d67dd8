"""What a layer was given, batch by batch, and whether a statistic can be made of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from poise._errors import DataError
from poise.functional.population import Population
from poise.surgery._recalibration._feed import Seen
from poise.surgery._recalibration._statistics import BatchNormLayer, statistics_of, store

Populations = dict[int | None, Population]
"""By domain; None for a layer that keeps none."""


@dataclass
class Meter:
    """What a layer was given.

    Args:
        name: Of the layer.
        totals: Moments of all, by domain.
        calls: Most calls in one batch.
        finite: Of each call, its batch and whether all was finite. A tensor, so that no device has to wait.
    """

    name: str
    totals: Populations = field(default_factory=dict)
    calls: int = 0
    finite: list[tuple[int, Tensor]] = field(default_factory=list)
    _calls_now: int = 0

    def add(self, seen: Seen) -> Populations:
        """Pool one input; its own moments."""
        found = seen.moments()
        is_new = not self.finite or self.finite[-1][0] != seen.batch
        self._calls_now = 1 if is_new else self._calls_now + 1
        self.calls = max(self.calls, self._calls_now)
        for moments in found.values():
            self.finite.append((seen.batch, torch.isfinite(moments.squares).all()))
        self.totals = _pooled(self.totals, found)
        return found

    def pooled(self, other: Meter) -> Meter:
        """With what the same layer was given on another rank."""
        return Meter(self.name, _pooled(self.totals, other.totals), max(self.calls, other.calls))

    def portable(self) -> Meter:
        """For other ranks.

        Raises:
            DataError: If a value was not finite.
        """
        for batch, is_finite in self.finite:
            if not is_finite:
                raise DataError(
                    "It is given NaN or infinite values.",
                    where=f"layer {self.name!r}, batch {batch}",
                    repair="Mend the rows, or the weights before the layer.",
                )
        return Meter(self.name, {domain: moments.to("cpu") for domain, moments in self.totals.items()}, self.calls)

    def settle(self, layer: BatchNormLayer) -> None:
        """Store it in the layer.

        Raises:
            DataError: If it is no statistic, or none that the layer can hold.
        """
        for domain, moments in self.totals.items():
            where = f"layer {label(self.name, domain)!r}"
            if moments.count < 2:
                raise DataError(
                    f"There is {'one' if moments.count else 'no'} value for each channel, and a variance needs two.",
                    where=where,
                    repair="Give more rows, or a mask that hides fewer.",
                )
            store(layer, moments, domain)
            for buffer in statistics_of(layer, domain):
                if not bool(torch.isfinite(buffer).all()):
                    raise DataError(f"Its statistics are beyond the range of {buffer.dtype}.", where=where)


def label(name: str, domain: int | None) -> str:
    """A layer's statistics as a reader wants them called."""
    return name if domain is None else f"{name}[domain {domain}]"


def _pooled(one: Populations, other: Populations) -> Populations:
    return {
        domain: one[domain].merged(other[domain]) if domain in one and domain in other else (one | other)[domain]
        for domain in one | other
    }
