"""One row of a study."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from poise.recipe import Recipe

TrialEnd = Literal["", "complete", "pruned", "failed"]


@dataclass(eq=False)
class Trial:
    """What was tried and how it went.

    Args:
        number: From 0, in the order of proposals.
        recipe: What was trained.
        origin: Name in the portfolio, or of the sampler.
        params: As `Proposal.params`.
        rungs: Validation loss, the best so far, by the epochs done at each rung.
        folds: Validation loss at the end, by fold, where a trial was trained on several.
        end: "" while it may go on, "complete", "pruned" (others did better) or "failed" (numbers that are not finite).
        engine: That trained it.
        seconds: Of training.
    """

    number: int
    recipe: Recipe
    origin: str = ""
    params: Mapping[str, Any] | None = None
    rungs: dict[int, float] = field(default_factory=dict)
    folds: dict[int, float] = field(default_factory=dict)
    end: TrialEnd = ""
    engine: str = ""
    seconds: float = 0.0

    @property
    def epochs(self) -> int:
        """Of the last rung that it reached."""
        return max(self.rungs, default=0)

    @property
    def loss(self) -> float:
        """Validation loss at the last rung; infinite before the first and after a failure."""
        return math.inf if self.end == "failed" else self.rungs.get(self.epochs, math.inf)
