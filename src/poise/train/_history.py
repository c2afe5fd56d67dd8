"""What is recorded after every epoch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """Scores after one epoch, training and validation alike in eval mode, with the same loss and no penalties.

    Args:
        epoch: Number of epochs done.
        lr: Learning rate of the epoch's last step.
        train_loss: Mean loss over the training rows: nats, or squared error in units of the target's variance.
        val_loss: The same over the validation rows.
        train_score: Accuracy, or R².
        val_score: The same over the validation rows.
        seconds: Training time so far.
    """

    epoch: int
    lr: float
    train_loss: float
    val_loss: float
    train_score: float
    val_score: float
    seconds: float

    @property
    def gap(self) -> float:
        """Validation loss minus training loss; positive means overfitting."""
        return self.val_loss - self.train_loss
