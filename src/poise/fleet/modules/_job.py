"""What all trainings of a search have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.weak import WeakIdKeyDictionary

from poise._errors import ConfigError
from poise._random import Key
from poise.fleet.modules._seeded import seeded
from poise.fleet.modules._source import Pair, Source

Loss = Callable[[Any, Tensor], Tensor]
"""loss(outputs, targets), the mean over the rows of a batch."""
ROWS_OF_A_SCORE = 256
_ROWS_OF_AN_EXAMPLE = 8
_GIVEN = WeakIdKeyDictionary()


@dataclass(frozen=True, eq=False)
class Job:
    """What is trained on what, whatever the recipe.

    Trainings of a job have the same initial weights, order of rows and random numbers, so that they differ by their
    recipes only.

    Args:
        factory: Makes a new model, each time it is called.
        train: Rows that weights learn from.
        val: Rows that choose.
        loss: Of outputs and targets.
        max_epochs: Schedules span it.
        seed: Names all random numbers.
    """

    factory: Callable[[], nn.Module]
    train: Source
    val: Source
    loss: Loss
    max_epochs: int
    seed: int = 0

    @property
    def key(self) -> Key:
        """The root of the random numbers."""
        return Key(self.seed)

    @cached_property
    def example(self) -> Pair:
        """A few training rows."""
        with seeded(self.key.stream("example")):
            x, y = next(iter(self.train.in_order(_ROWS_OF_AN_EXAMPLE)))
        rows = len(y)
        few = min(rows, _ROWS_OF_AN_EXAMPLE)
        # What has another first axis than the rows, or none, is left whole.
        short = tree_map(lambda one: one[:few] if isinstance(one, Tensor) and one.ndim and len(one) == rows else one, x)
        return short, y[:few]

    def make(self) -> nn.Module:
        """A new model, with the initial weights that all have.

        Raises:
            ConfigError: If the factory does not make one.
        """
        with seeded(self.key.stream("init")):
            model = self.factory()
        if not isinstance(model, nn.Module):
            raise ConfigError(f"`factory` must return a torch.nn.Module, but returned {type(model).__name__}.")
        trained = [one for one in model.parameters() if one.requires_grad]
        if any(one in _GIVEN for one in trained):
            raise ConfigError(
                "`factory` returned weights that it has returned before, and trainings must not share them.",
                repair="Let it make a new model each time it is called.",
            )
        _GIVEN.update(dict.fromkeys(trained))
        if not model.training:
            model.train()
        return model
