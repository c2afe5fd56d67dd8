"""Stochastic weight averaging."""

from __future__ import annotations

import math
from dataclasses import dataclass

from poise._checks import Interval
from poise.methods._bases import AverageMethod, Clock, structural


@dataclass(frozen=True)
class SWA(AverageMethod):
    """Predicts with the plain mean of the weights at the ends of all epochs after `swa_start` of the training.

    average_n = average_(n-1) + (weights - average_(n-1)) / n. In eval mode the average predicts, with batch statistics
    recomputed for it.

    Args:
        swa_start: Share of the planned training after which averaging begins, in [0, 1).

    Shape:
        Parameters of any shape.

    Example:
        >>> from poise.methods import SWA, Clock
        >>> SWA(swa_start=0.5).rate(Clock(step=80, epoch_steps=10, num_steps=100))
        0.3333333333333333

    Reference: Izmailov et al., "Averaging weights leads to wider optima and better generalization", UAI 2018.
    """

    swa_start: float = structural(0.75, interval=Interval(0, 1, high_open=True))

    def rate(self, clock: Clock) -> float:
        if not clock.ends_epoch:
            return 0.0
        # A share such as 0.57 of 100 epochs is 57 only up to rounding.
        before = math.floor(self.swa_start * clock.num_steps / clock.epoch_steps + 1e-9)
        num_averaged = clock.step // clock.epoch_steps - before
        return 1 / num_averaged if num_averaged > 0 else 0.0
