"""How much is tried: recipes, folds and epochs that fit a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from poise.tuning._halving import HalvingOptions

Quality = Literal["fast", "default", "best"]
QUALITIES: tuple[Quality, ...] = ("fast", "default", "best")
_NUM_FOLDS = 5
_ROWS_FOR_ONE_SPLIT = 20_000  # with so many, a single validation split says enough
_ROWS_FOR_FEW_FOLDS = 2_000  # with so many, three folds of five
_SECOND_CUT = 3  # of so many finalists, one leaves after its second fold
_BATCH = 8


@dataclass(frozen=True)
class Effort:
    """How much a search tries.

    Args:
        num_trials: Recipes, ≥ 1.
        num_finalists: Recipes that are trained to the end, and on all folds, ≥ 1.
        num_folds: Parts of the rows that take turns in validation; 1 for a single split.
        max_epochs: Of a training that is not cut short, ≥ 1.

    Example:
        >>> Effort(num_trials=27, num_finalists=3, num_folds=5, max_epochs=81).num_epochs
        1008
    """

    num_trials: int
    num_finalists: int
    num_folds: int
    max_epochs: int

    @property
    def halving(self) -> HalvingOptions:
        """How the recipes compete on the first fold."""
        return HalvingOptions(self.num_trials, batch_size=_BATCH, min_complete=self.num_finalists)

    @property
    def num_survivors(self) -> int:
        """Finalists that are trained on all folds."""
        return self.num_finalists - self.num_finalists // _SECOND_CUT

    @property
    def num_trainings(self) -> int:
        """Networks that are begun."""
        return self.num_trials + self._on_other_folds

    @property
    def _on_other_folds(self) -> int:
        return (self.num_finalists if self.num_folds > 1 else 0) + self.num_survivors * max(0, self.num_folds - 2)

    @property
    def num_epochs(self) -> int:
        """Epochs of all trainings together, about: one in three goes on from each rung."""
        standing, before, total = self.num_trials, 0, 0
        for epochs in self.halving.rungs(self.max_epochs):
            total += standing * (epochs - before)
            standing, before = max(self.num_finalists, standing // 3), epochs
        return total + self._on_other_folds * self.max_epochs


def full_effort(quality: Quality, num_rows: int, max_epochs: int) -> Effort:
    """What a quality tries where time does not matter.

    Args:
        quality: "fast", "default" or "best".
        num_rows: To learn from.
        max_epochs: That suit the table.
    """
    return _ladder(quality, num_rows, max_epochs)[-1]


def effort_within(quality: Quality, num_rows: int, max_epochs: int, epochs_in_time: float) -> Effort:
    """The most that a quality tries within a time.

    Args:
        quality: As in `full_effort`.
        num_rows: As in `full_effort`.
        max_epochs: As in `full_effort`; fewer if even the least effort takes longer.
        epochs_in_time: Epochs for which there is time, on all cores together.

    Example:
        >>> effort_within("default", 1000, 100, epochs_in_time=100)
        Effort(num_trials=2, num_finalists=1, num_folds=1, max_epochs=99)
    """
    ladder = _ladder(quality, num_rows, max_epochs)
    fitting = [effort for effort in ladder if effort.num_epochs <= epochs_in_time]
    if fitting:
        return fitting[-1]
    least = ladder[0]
    for epochs in range(max_epochs, 0, -1):
        shorter = replace(least, max_epochs=epochs)
        if shorter.num_epochs <= epochs_in_time:
            return shorter
    return replace(least, max_epochs=1)


def _ladder(quality: Quality, num_rows: int, max_epochs: int) -> list[Effort]:
    """From the least to the most: first more recipes, then folds, then more of all."""
    whole = 1 if num_rows >= _ROWS_FOR_ONE_SPLIT else _NUM_FOLDS
    steps = [(2, 1, 1), (4, 2, 1), (8, 3, 1), (16, 3, 1)]
    if quality != "fast":
        steps += [(8, 2, 3), (16, 3, 3), (32, 3, 3)] if whole > 1 else [(16, 5, 1), (32, 5, 1)]
        if num_rows < _ROWS_FOR_FEW_FOLDS:
            steps += [(32, 3, whole)]
    if quality == "best":
        steps += [(40, 5, 5)] if whole > 1 else [(32, 8, 1)]
        steps += [(trials, finalists, whole) for trials, finalists in ((48, 8), (64, 10), (96, 12), (128, 16))]
    return [Effort(*step, max_epochs) for step in steps]
