"""Regularizers as data: the base of all, and one abstract base for each place where a regularizer acts.

A method is a frozen dataclass. Its fields are declared with `strength` (a number or a schedule, may differ between
variants that train side by side) or `structural` (shapes the computation, must agree between them). The declaration
holds the range, so no method checks its own arguments.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

from torch import Tensor, nn

from poise._checks import Interval, check_choice, check_integer, check_real, check_type
from poise._random import Key
from poise.data._inputs import Inputs
from poise.functional.schedule import Schedule
from poise.nn import SiteKind

Role = Literal["kernel", "bias", "norm", "embedding", "scale"]
Layout = Literal["rows", "maps", "sequence"]
ROLES: tuple[Role, ...] = ("kernel", "bias", "norm", "embedding", "scale")


def strength(default: float, interval: Interval, *, search: tuple[float, float] | None = None) -> Any:
    """A field that holds a number or a schedule within `interval`; `search` is the range worth searching."""
    return field(default=default, metadata={"strength": True, "interval": interval, "search": search})


def structural(default: Any, *, interval: Interval | None = None, choices: tuple[Any, ...] | None = None) -> Any:
    """A field that shapes the computation: an integer or number in `interval`, one of `choices`, or a bool."""
    return field(default=default, metadata={"strength": False, "interval": interval, "choices": choices})


@dataclass(frozen=True)
class Method(ABC):
    """A regularizer: frozen, comparable, printable data."""

    place: ClassVar[str]

    def __post_init__(self) -> None:
        for one in fields(self):
            _check_field(one, getattr(self, one.name))

    def at(self, progress: float) -> Self:
        """This method with every schedule replaced by its value at `progress`, in [0, 1]."""
        if not self._schedules:
            return self
        return self.with_strengths({name: schedule.at(progress) for name, schedule in self._schedules.items()})

    def with_strengths(self, values: Mapping[str, Any]) -> Self:
        """This method with other strengths, unchecked: numbers, or tensors where variants are stacked."""
        changed = copy.copy(self)
        changed.__dict__.pop("_schedules", None)
        for name, value in values.items():
            object.__setattr__(changed, name, value)  # what `dataclasses.replace` does, without the checks
        return changed

    @property
    def is_scheduled(self) -> bool:
        """Whether any strength changes over the training."""
        return bool(self._schedules)

    @cached_property
    def _schedules(self) -> dict[str, Schedule]:
        strengths = {one.name: getattr(self, one.name) for one in fields(self) if one.metadata.get("strength")}
        return {name: value for name, value in strengths.items() if isinstance(value, Schedule)}


def _check_field(declared: Field[Any], value: object) -> None:
    name, choices = declared.name, declared.metadata.get("choices")
    interval: Interval = declared.metadata.get("interval") or Interval(-math.inf)
    if declared.metadata.get("strength"):
        for number in value.values if isinstance(value, Schedule) else (value,):
            check_real(name, number, interval)
    elif choices is not None:
        several = isinstance(declared.default, tuple)
        if several:
            check_type(name, value, tuple)
        for one in value if several and isinstance(value, tuple) else (value,):
            check_choice(name, one, choices)
    elif isinstance(declared.default, bool):
        check_type(name, value, bool)
    elif isinstance(declared.default, int):
        check_integer(name, value, interval)
    else:
        check_real(name, value, interval)


@dataclass(frozen=True)
class Site:
    """A spot in a network where a layer may be inserted.

    Args:
        kind: "input" (the encoded features), "norm" (after a hidden linear layer), "hidden" (after an activation),
            or "branch" (the end of a residual branch).
        num_features: Width at the spot.
        depth: Position of its block, 0 for the first and 1 for the last.
        before_batch_norm: Whether a batch normalization lies downstream.
        layout: "rows" (B, D), "maps" (B, D, ...) of a convolution, or "sequence" (B, ..., D).

    Example:
        >>> Site("branch", 64, depth=0.5)
        Site(kind='branch', num_features=64, depth=0.5, before_batch_norm=False, layout='rows')
    """

    kind: SiteKind
    num_features: int
    depth: float = 0.0
    before_batch_norm: bool = False
    layout: Layout = "rows"


@dataclass(frozen=True)
class Batch:
    """A training batch.

    Shape:
        targets: (B, C) float: class probabilities, or scaled values.
        weight: (B,) float: row weights, mean 1 over the training rows.
    """

    inputs: Inputs
    targets: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Forward:
    """What a loss method sees of one training pass.

    Args:
        outputs: (B, C) outputs of the network.
        targets: (B, C) as in Batch.
        weight: (B,) as in Batch.
        row_losses: Maps (outputs, targets) to the (B,) losses of the task.
        neutral: The target that says nothing (1 / number of classes); None for regression.
        weights: The parameters.
    """

    outputs: Tensor
    targets: Tensor
    weight: Tensor
    row_losses: Callable[[Tensor, Tensor], Tensor]
    neutral: float | None
    weights: Weights


@dataclass(frozen=True)
class Weight:
    """A parameter with its role. For a kernel, axis 0 counts the output units and the rest are their inputs.

    Args:
        tensor: The parameter.
        role: What it does.
        gradient: Where it is kept elsewhere than in the parameter.

    Example:
        >>> import torch
        >>> Weight(torch.zeros(2, 3), "kernel").role
        'kernel'
    """

    tensor: Tensor
    role: Role
    gradient: Tensor | None = None

    @property
    def grad(self) -> Tensor | None:
        """Its gradient, if there is one."""
        return self.tensor.grad if self.gradient is None else self.gradient


Weights = Mapping[str, Weight]


class NetworkMethod(Method):
    """Acts inside the network, as layers at its sites."""

    place = "network"

    @abstractmethod
    def layer(self, site: Site) -> nn.Module | None:
        """The layer for `site`, or None where this method has none."""

    def settings(self, site: Site) -> dict[str, float]:
        """Attributes of the layer at `site` that follow this method's strengths; set anew when they change."""
        return {}


class LossMethod(Method):
    """Adds a term to the loss."""

    place = "loss"

    @abstractmethod
    def penalty(self, forward: Forward) -> Tensor:
        """The scalar to be added to the mean loss of the batch."""


class BatchMethod(Method):
    """Changes the batch before the network sees it."""

    place = "batch"

    @abstractmethod
    def transform(self, batch: Batch, key: Key) -> Batch:
        """The changed batch; `key` names this step's random numbers. The given batch is left as it is."""


class UpdateMethod(Method):
    """Changes gradients or weights round the optimizer's step."""

    place = "update"
    moment: ClassVar[Literal["before", "after"]]

    @abstractmethod
    def update(self, weights: Weights, lr: float) -> None:
        """Change weights (or their `.grad`) in place, `moment` the optimizer's step of learning rate `lr`."""


@dataclass(frozen=True)
class Clock:
    """Where a training stands: `step` optimizer steps are done, of `num_steps`, with `epoch_steps` an epoch.

    Example:
        >>> Clock(step=30, epoch_steps=10, num_steps=40).progress
        0.75
    """

    step: int
    epoch_steps: int
    num_steps: int

    @property
    def progress(self) -> float:
        """Share of the planned steps that are done, in [0, 1]."""
        return self.step / self.num_steps

    @property
    def ends_epoch(self) -> bool:
        """Whether the last step done was the last of an epoch."""
        return self.step % self.epoch_steps == 0


class AverageMethod(Method):
    """Averages the weights over time; the average is what predicts."""

    place = "average"

    @abstractmethod
    def rate(self, clock: Clock) -> float:
        """c in average ← average + c · (weights - average) after this step; 0 leaves it, 1 restarts it."""


class StopMethod(Method):
    """Ends the training before its budget does."""

    place = "stop"

    @abstractmethod
    def should_stop(self, val_losses: list[float]) -> bool:
        """Whether to stop, given the validation loss of every epoch so far."""
