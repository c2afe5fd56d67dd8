"""Feature masks."""

from __future__ import annotations

from dataclasses import dataclass

from poise._checks import Interval
from poise._random import Key
from poise.data import Inputs
from poise.functional.schedule import Strength, value_at
from poise.methods._bases import Batch, BatchMethod, strength


@dataclass(frozen=True)
class FeatureMask(BatchMethod):
    """Hides each cell of the table with probability p: a number becomes 0, its median; a category becomes unknown.

    x = x · m, m ~ Bernoulli(1 - p), not rescaled, since a hidden cell should look like a missing one. It does nothing
    in eval mode.

    Args:
        p: Probability, in [0, 1), or a schedule. Search: [0, 0.3].

    Shape:
        A batch of B rows in, the same out.

    Example:
        >>> from poise.methods import FeatureMask
        >>> FeatureMask(p=0.1)
        FeatureMask(p=0.1)

    Reference: Kadra et al., "Well-tuned simple nets excel on tabular datasets", NeurIPS 2021 (cut-out on rows).
    """

    p: Strength = strength(0.1, Interval(0, 1, high_open=True), search=(0.0, 0.3))

    def transform(self, batch: Batch, key: Key) -> Batch:
        p = value_at(self.p, 0.0)
        if p == 0:
            return batch
        numeric, categorical = batch.inputs
        seen = key.stream("numeric").keep_mask(*numeric.shape, p=p).ne(0).to(numeric.device)
        known = key.stream("categorical").keep_mask(*categorical.shape, p=p).ne(0).to(numeric.device)
        return Batch(Inputs(numeric * seen, categorical * known), batch.targets, batch.weight)
