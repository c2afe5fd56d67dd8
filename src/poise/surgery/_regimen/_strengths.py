"""How a training of a user's own is to go, and the layers whose strengths follow it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from poise._errors import ConfigError
from poise._random import Key
from poise.nn import Stochastic
from poise.surgery._insertion._work import Placed


@dataclass(frozen=True)
class Course:
    """How a training is to go.

    Args:
        num_steps: Optimizer steps that schedules span; None where nothing is scheduled.
        epoch_steps: Optimizer steps of an epoch; SWA averages at its end.
        num_classes: Of the targets; None if not known.
        bias_lr: Factor on the learning rate of biases.
        key: Names all random numbers.
    """

    num_steps: int | None
    epoch_steps: int
    num_classes: int | None
    bias_lr: float
    key: Key


class Strengths:
    """Layers with the strengths and the random numbers of a training.

    Args:
        placed: The layers.
        key: Names their random numbers.
    """

    def __init__(self, placed: Sequence[Placed], key: Key) -> None:
        self._scheduled = [one for one in placed if one.method.is_scheduled]
        self._drawing = {one.where: one.module for one in placed if isinstance(one.module, Stochastic)}
        #: Paths of the layers that were inserted and are trained.
        self.trained = [one.where for one in placed if one.where not in self._drawing]
        for where, layer in self._drawing.items():
            layer.key, layer.step = key.stream("mask", where), 0

    def set_progress(self, progress: float) -> None:
        """Let every schedule be at `progress`, in [0, 1]."""
        for one in self._scheduled:
            one.set_progress(progress)

    def state_dict(self) -> dict[str, int]:
        """How many passes each layer has drawn numbers for."""
        return {where: layer.step for where, layer in self._drawing.items()}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from `state`.

        Args:
            state: Of `state_dict`.

        Raises:
            ConfigError: If it is of other layers.
        """
        if set(state) != set(self._drawing):
            raise ConfigError("The state is of another recipe or model.", where="regimen.load_state_dict")
        for where, layer in self._drawing.items():
            layer.step = int(state[where])
