"""The numbers that change from step to step, computed for an epoch at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import betaincinv

from poise._random import Key
from poise.functional.schedule import Schedule, Strength, value_at
from poise.kernels.reference import WORD, philox

Array = NDArray[np.float64]


@dataclass
class StrengthTable:
    """Strengths by index; those that do not change cost nothing.

    Args:
        constants: The value of each strength, or 0 where it changes.
        moving: For the others, index and a function of (progress, steps).
    """

    constants: list[float] = field(default_factory=list)
    moving: list[tuple[int, Callable[[Array, NDArray[np.int64]], Array]]] = field(default_factory=list)

    def add(self, strength: Strength) -> int:
        """A number or schedule; returns its index."""
        if not isinstance(strength, Schedule):
            self.constants.append(float(strength))
            return len(self.constants) - 1
        return self.add_function(lambda progress: value_at(strength, progress))

    def add_function(self, function: Callable[[float], float]) -> int:
        """A function of progress; returns its index."""
        return self._add_moving(lambda progress, _: np.array([function(float(one)) for one in progress]))

    def add_mixing(self, alpha: Strength, key: Key) -> int:
        """The λ of each step, drawn from Beta(alpha, alpha) as `Key.beta` does, 1 for alpha = 0; returns its index."""

        def draw(progress: Array, steps: NDArray[np.int64]) -> Array:
            counter = torch.zeros(4, len(steps), dtype=torch.int64)
            counter[2], counter[3] = torch.from_numpy(steps & WORD), torch.from_numpy(steps >> 32)
            words = philox(counter, (key.seed & WORD, key.seed >> 32))[0]
            u = (words.to(torch.float64) + 0.5) * 2.0**-32
            alphas = np.array([value_at(alpha, float(one)) for one in progress])
            drawn = betaincinv(np.where(alphas > 0, alphas, 1), np.where(alphas > 0, alphas, 1), u.numpy())
            return np.where(alphas > 0, drawn, 1.0)

        return self._add_moving(draw)

    def _add_moving(self, function: Callable[[Array, NDArray[np.int64]], Array]) -> int:
        self.constants.append(0.0)
        self.moving.append((len(self.constants) - 1, function))
        return len(self.constants) - 1

    def at(self, steps: NDArray[np.int64], num_steps: int) -> Array:
        """(steps, number of strengths) values, of a training of `num_steps` steps."""
        table = np.empty((len(steps), len(self.constants)))
        table[:] = self.constants
        progress = steps / num_steps
        for index, function in self.moving:
            table[:, index] = function(progress, steps)
        return table
