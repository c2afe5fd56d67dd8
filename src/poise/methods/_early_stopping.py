"""Early stopping."""

from __future__ import annotations

from dataclasses import dataclass

from poise._checks import Interval
from poise.methods._bases import StopMethod, structural


@dataclass(frozen=True)
class EarlyStopping(StopMethod):
    """Stops after `patience` epochs in which the validation loss did not fall by more than `min_delta`.

    stop at epoch t if min_(s > t - patience) v_s > min_(s ≤ t - patience) v_s - min_delta. The weights of the epoch
    with the lowest validation loss predict.

    Args:
        patience: Epochs without improvement, ≥ 1.
        min_delta: Improvement that counts, ≥ 0, in units of the loss.

    Shape:
        Validation losses (epochs,).

    Example:
        >>> from poise.methods import EarlyStopping
        >>> EarlyStopping(patience=2).should_stop([1.0, 0.9, 0.95, 0.91])
        True

    Reference: Prechelt, "Early stopping - but when?", in Neural Networks: Tricks of the Trade, 1998.
    """

    patience: int = structural(20, interval=Interval(1))
    min_delta: float = structural(0.0, interval=Interval(0))

    def should_stop(self, val_losses: list[float]) -> bool:
        earlier, recent = val_losses[: -self.patience], val_losses[-self.patience :]
        return bool(earlier) and min(recent) >= min(earlier) - self.min_delta
