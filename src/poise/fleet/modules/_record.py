"""What is written down after an epoch, whoever trained it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from poise.fleet.modules._built import Built
from poise.fleet.modules._state import ModuleState


def mean_of(parts: Sequence[float], rows: Sequence[int]) -> float:
    """The mean over all rows of losses that are means over the rows of their batches."""
    return sum(part * count for part, count in zip(parts, rows, strict=True)) / sum(rows)


def record_epoch(
    state: ModuleState, built: Built, parts: Sequence[float], val_loss: float, *, max_epochs: int,
    tensors: Mapping[str, Tensor], serving: Callable[[], dict[str, Tensor]], counters: dict[str, Any], engine: str,
    seconds: float,
) -> None:  # fmt: skip
    """Write an epoch down in `state`, by a single assignment, so that an interrupt finds it before or after.

    Args:
        state: Where the training stood.
        built: What is trained; says whether to stop.
        parts: Validation loss of each batch.
        val_loss: Their mean.
        max_epochs: Of the job.
        tensors: Of the training.
        serving: Makes the tensors that predict, asked only if this is the best epoch.
        counters: Of `Built.counters`.
        engine: Who trained it.
        seconds: That the epoch took.
    """
    changed: dict[str, Any] = {"seconds": state.seconds + seconds}
    changed["engines"] = state.engines if engine in state.engines[-1:] else [*state.engines, engine]
    if not math.isfinite(val_loss):
        vars(state).update(changed | {"stopped": "non-finite"})
        return
    losses = [*state.val_losses, val_loss]
    kept = {name: one for name, one in state.tensors.items() if name.startswith("best.")}
    if val_loss < min(state.val_losses, default=math.inf):
        kept = {f"best.{name}": one for name, one in serving().items()}
        changed |= {"best_epoch": len(losses), "best_parts": list(parts)}
    stopped = "budget" if len(losses) >= max_epochs else "early" if built.regimen.should_stop(losses) else ""
    changed |= {"tensors": {**tensors, **kept}, "counters": counters, "val_losses": losses, "stopped": stopped}
    vars(state).update(changed)
