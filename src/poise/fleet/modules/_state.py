"""Where the training of a module stands."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from poise.train import read_checkpoint, write_checkpoint

Stopped = Literal["", "budget", "early", "non-finite"]


@dataclass
class ModuleState:
    """Tensors and numbers only; it belongs to no engine: one may go on where another stopped.

    Args:
        tensors: By parameter: "weights/...", "buffers/...", "exp_avg/...", "exp_avg_sq/...", "step/...", "average/...",
            and "best.weights/...", "best.buffers/..." of the epoch that predicts.
        counters: Of `Built.counters`.
        val_losses: After each epoch.
        best_epoch: With the lowest of them; 0 before the first.
        best_parts: Validation loss of each batch in that epoch.
        seconds: Of training and scoring.
        stopped: "" while it goes on, "budget", "early" or "non-finite".
        engines: That trained it, in order.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    counters: dict[str, Any] = field(default_factory=dict)
    val_losses: list[float] = field(default_factory=list)
    best_epoch: int = 0
    best_parts: list[float] = field(default_factory=list)
    seconds: float = 0.0
    stopped: Stopped = ""
    engines: list[str] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.val_losses)

    @property
    def is_whole(self) -> bool:
        """Whether a training can go on from it."""
        return self.epoch == 0 or any(name.startswith("weights/") for name in self.tensors)

    def reduce(self) -> None:
        """Keep only what predicts."""
        self.tensors = {name: one for name, one in self.tensors.items() if name.startswith("best.")}

    def save(self, folder: Path, name: str, about: dict[str, Any]) -> None:
        """Write it; `about` says what it is the state of."""
        numbers = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "tensors"}
        write_checkpoint(self.tensors, {"about": about, "state": numbers}, folder, name)

    @classmethod
    def read(cls, folder: Path, name: str) -> tuple[ModuleState, dict[str, Any]] | None:
        """The state that was saved under `name`, and what it is the state of; None where there is none.

        Raises:
            ResumeError: If it is damaged.
        """
        return read_checkpoint(folder, name, lambda tensors, all_: (cls(tensors, **all_["state"]), all_["about"]))
