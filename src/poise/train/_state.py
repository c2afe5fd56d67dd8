"""Where a training stands: tensors and numbers only."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from torch import Tensor

from poise.train._history import Epoch


@dataclass
class State:
    """Where a training stands. It saves to safetensors and JSON and resumes bit for bit.

    Args:
        tensors: "weights", "exp_avg", "exp_avg_sq", "average" (flat vectors over all parameters), "statistics" (flat
            running statistics), "served" and "served_statistics" (what predicts), and "encoder.*".
        encoder: The plain-data half of the encoder.
        target_mean: Regression: mean of the target over the training rows; else 0.
        target_scale: Regression: standard deviation likewise; else 1.
        step: Optimizer steps done.
        history: One record an epoch.
        best_epoch: The epoch whose weights predict; 0 before the first.
        averaging: Whether an average of the weights has begun; it then predicts in their place.
        stopped: Why the training ended: "" while it goes on, "budget", "early", "time", "pruned" (others did
            better) or "non-finite".
    """

    tensors: dict[str, Tensor]
    encoder: dict[str, Any]
    target_mean: float = 0.0
    target_scale: float = 1.0
    step: int = 0
    history: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    averaging: bool = False
    stopped: str = ""

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.history)

    @property
    def best(self) -> Epoch | None:
        """The record of the epoch whose weights predict."""
        return self.history[self.best_epoch - 1] if self.best_epoch else None

    @property
    def val_loss(self) -> float:
        """Validation loss of what predicts; infinite before the first epoch and after a failure."""
        return self.best.val_loss if self.best else math.inf

    def encoder_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Both halves of the encoder."""
        mark = "encoder."
        tensors = {name[len(mark) :]: tensor for name, tensor in self.tensors.items() if name.startswith(mark)}
        return tensors, self.encoder

    def numbers(self) -> dict[str, Any]:
        """All but the tensors, as JSON takes it."""
        plain = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("tensors", "history")}
        return {**plain, "history": [asdict(record) for record in self.history]}

    @classmethod
    def from_numbers(cls, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> State:
        """The state whose `numbers()` and tensors these are."""
        history = [Epoch(**record) for record in numbers["history"]]
        return cls(tensors, **{**numbers, "history": history})
