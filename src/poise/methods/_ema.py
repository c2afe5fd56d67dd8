"""Exponential moving average of the weights."""

from __future__ import annotations

from dataclasses import dataclass

from poise._checks import Interval
from poise.functional.schedule import Strength, value_at
from poise.methods._bases import AverageMethod, Clock, strength


@dataclass(frozen=True)
class EMA(AverageMethod):
    """Predicts with average ← d · average + (1 - d) · weights, d = min(decay, (1 + n) / (10 + n)) after n steps.

    The warm-up keeps the initial weights from lingering in short runs. In eval mode the average predicts, with batch
    statistics recomputed for it.

    Args:
        decay: Weight of the old average, in [0, 1), or a schedule. Search: [0.9, 0.9999].

    Shape:
        Parameters of any shape.

    Example:
        >>> from poise.methods import EMA, Clock
        >>> EMA(decay=0.99).rate(Clock(step=1, epoch_steps=10, num_steps=100))
        0.8181818181818181

    Reference: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control Optim. 30,
    1992. Morales-Brotons, Vogels, Hendrikx, "Exponential moving average of weights in deep learning", TMLR 2024.
    """

    decay: Strength = strength(0.999, Interval(0, 1, high_open=True), search=(0.9, 0.9999))

    def rate(self, clock: Clock) -> float:
        return 1 - min(value_at(self.decay, 0.0), (1 + clock.step) / (10 + clock.step))
