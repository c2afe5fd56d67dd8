"""What folding did and what it left, as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class FoldStep:
    """What becomes of one layer or function.

    Args:
        where: Path of the layer, or of the module that calls the function.
        layer: Its type.
        outcome: "folded", "removed" or "left".
        why: Where it went, or why it stays.

    Example:
        >>> FoldStep("3", "Dropout", "removed", "does nothing in eval mode").outcome
        'removed'
    """

    where: str
    layer: str
    outcome: Literal["folded", "removed", "left"]
    why: str


@dataclass(frozen=True)
class FoldPlan:
    """What `fold` does with each batch normalization and dropout of a model, in the order of execution.

    Args:
        steps: One for each.

    Example:
        >>> print(FoldPlan((FoldStep("1", "BatchNorm2d", "folded", "into 0"),)))
        1  BatchNorm2d  folded  into 0
    """

    steps: tuple[FoldStep, ...]

    @property
    def left(self) -> tuple[FoldStep, ...]:
        """What stays as it is."""
        return tuple(step for step in self.steps if step.outcome == "left")

    def __str__(self) -> str:
        rows = [(step.where or "(network)", step.layer, step.outcome, step.why) for step in self.steps]
        widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
        return "\n".join(
            "  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[3]]) for row in rows
        )
