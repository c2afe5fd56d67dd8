"""Mixup."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from poise._checks import Interval
from poise._random import Key
from poise.data import Inputs
from poise.functional.schedule import Strength, value_at
from poise.methods._bases import Batch, BatchMethod, strength


@dataclass(frozen=True)
class Mixup(BatchMethod):
    """Mixes each row with a partner: x = λ x_i + (1 - λ) x_j, y = λ y_i + (1 - λ) y_j, λ ~ Beta(alpha, alpha).

    One λ and one random pairing a batch. A category cannot be mixed; it is taken from the partner with probability
    1 - λ, which mixes its one-hot code in expectation. Row weights mix like targets. It does nothing in eval mode.

    Args:
        alpha: ≥ 0, or a schedule; 0 mixes nothing. Search: [0, 1].

    Shape:
        A batch of B rows in, the same out.

    Example:
        >>> from poise.methods import Mixup
        >>> Mixup(alpha=0.2)
        Mixup(alpha=0.2)

    Reference: Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018.
    """

    alpha: Strength = strength(0.2, Interval(0), search=(0.0, 1.0))

    def transform(self, batch: Batch, key: Key) -> Batch:
        alpha = value_at(self.alpha, 0.0)
        if alpha == 0:
            return batch
        inputs, num_rows = batch.inputs, batch.inputs.num_rows
        lam = float(key.stream("lam").beta(alpha, 1))
        partner = key.stream("partner").permutation(num_rows).to(inputs.numeric.device)
        own = (key.stream("cell").uniform(*inputs.categorical.shape) < lam).to(inputs.categorical.device)
        return Batch(
            Inputs(
                torch.lerp(inputs.numeric[partner], inputs.numeric, lam),
                torch.where(own, inputs.categorical, inputs.categorical[partner]),
            ),
            torch.lerp(batch.targets[partner], batch.targets, lam),
            torch.lerp(batch.weight[partner], batch.weight, lam),
        )
