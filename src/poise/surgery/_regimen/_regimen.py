"""A recipe at work in a user's own training loop."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from poise._checks import Interval, check_real
from poise._errors import ConfigError, PoiseWarning
from poise.methods import (
    ROLES,
    AverageMethod,
    BatchMethod,
    Clock,
    LossMethod,
    Method,
    StopMethod,
    UpdateMethod,
    Weight,
    WeightDecay,
)
from poise.surgery._edit import Edits
from poise.surgery._graph._call import Call
from poise.surgery._insertion._work import Note, Placed
from poise.surgery._recalibration._recalibrate import recalibrate
from poise.surgery._recalibration._statistics import batch_norms
from poise.surgery._regimen._average import Average
from poise.surgery._regimen._mix import mix
from poise.surgery._regimen._objective import penalty_of
from poise.surgery._regimen._strengths import Course, Strengths
from poise.surgery._regimen._update import check_optimizer, turned_kernels, unscale, update
from poise.surgery._roles import weights_of

M = TypeVar("M", bound=Method)


class Regimen:
    """A recipe at work in a model, made by `poise.apply`: what was changed, and what a training loop calls.

    Args:
        model: With the recipe's layers in it.
        methods: Of the recipe.
        edits: What was changed.
        placed: Layers whose strengths follow a method.
        notes: What was not done, and why.
        course: How the training is to go.

    Example:
        >>> import poise
        >>> from poise.methods import Dropout, MaxNorm
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> x, y = torch.randn(16, 4), torch.randint(2, (16,))
        >>> regimen = poise.apply(poise.Recipe(methods=(Dropout(p=0.2), MaxNorm())), model, example=x)
        >>> optimizer = torch.optim.AdamW(regimen.param_groups(lr=1e-3))
        >>> loss = nn.functional.cross_entropy(model(x), y) + regimen.penalty()
        >>> loss.backward()
        >>> regimen.step(optimizer)
        >>> regimen.num_steps_done
        1
    """

    def __init__(
        self, model: nn.Module, methods: Sequence[Method], *, edits: Edits, placed: Sequence[Placed],
        notes: Sequence[Note], course: Course,
    ) -> None:  # fmt: skip
        self.model, self.methods, self.notes = model, tuple(methods), tuple(notes)
        self.num_steps_done = 0
        self._edits, self._course, self._strengths = edits, course, Strengths(placed, course.key)
        self._averages = [Average(one) for one in self._of(AverageMethod)]
        self._turned = turned_kernels(model)
        self._num_batches = 0
        self._checked: Optimizer | None = None
        self._strengths.set_progress(self._clock.progress)

    # What was changed

    def diff(self) -> str:
        """A line for each change with its reason, then one for everything that was not done."""
        width = max((len(note.where) for note in self.notes), default=0)
        lines = [f"{note.where or '(network)':{width}}  {note.text}" for note in self.notes]
        return "\n".join([*filter(None, [self._edits.diff()]), *lines])

    def undo(self) -> None:
        """Restore the structure of the model: modules, hooks and settings. Weights keep what they have learned.

        Raises:
            SurgeryError: If something else has changed the same places since.
        """
        self._edits.undo()

    # What the loop calls

    def param_groups(self, *, lr: float) -> list[dict[str, Any]]:
        """Parameter groups for any torch optimizer, one for each role, every trainable parameter once.

        They have no weight_decay of the optimizer's own: the recipe's is done by `step`, the same under any optimizer.

        Args:
            lr: Learning rate, ≥ 0; that of biases is multiplied by the recipe's `bias_lr`.

        Raises:
            ConfigError: If `lr` is out of range, or nothing is trainable.
        """
        check_real("lr", lr, Interval(0))
        groups = []
        for role in ROLES:
            params = [one.tensor for one in self._weights().values() if one.role == role]
            rate = lr * self._course.bias_lr if role == "bias" else lr
            groups.append({"params": params, "lr": rate, "weight_decay": 0.0, "role": role})
        groups = [group for group in groups if group["params"]]
        if not groups:
            raise ConfigError("The model has no parameter that is trained.", repair="Unfreeze what is to be trained.")
        return groups

    def batch(self, x: Any, y: Tensor | None = None) -> tuple[Any, Tensor | None]:
        """The batch that the model is to see in training, and its targets.

        Args:
            x: Floating numbers are mixed or masked as they are, integers as categories; bools stay. A tensor of any
                shape with the rows on its first axis, or a list, tuple or dict of such tensors.
            y: Class indices, probabilities or values. Class indices become probabilities, with the classes on axis 1 as
                `torch.nn.functional.cross_entropy` takes them, only if a method mixes them.

        Raises:
            ConfigError: If class indices are mixed and the number of classes is not known.
            DataError: If tensors do not agree in their rows.
        """
        methods = [one.at(self._clock.progress) for one in self._of(BatchMethod)]
        if not methods:
            return x, y
        key = self._course.key.stream("batch").at(self._num_batches)
        self._num_batches += 1
        return mix(methods, x, y, key, num_classes=self._course.num_classes)

    def penalty(self, outputs: Tensor | None = None, targets: Tensor | None = None) -> Tensor:
        """What the recipe adds to the mean loss of a batch: a scalar with gradient.

        Under gradient accumulation divide it like the loss: k micro-batches of (loss + penalty) / k are one batch.

        Args:
            outputs: What the model returned; needed by methods that look at it, such as LabelSmoothing.
            targets: What the loss was computed against.

        Raises:
            ConfigError: If a method needs outputs and targets and they are not given.
        """
        methods = [one.at(self._clock.progress) for one in self._of(LossMethod)]
        return penalty_of(methods, self._weights() if methods else {}, outputs, targets)

    def step(self, optimizer: Optimizer, *, scaler: torch.amp.GradScaler | None = None) -> None:
        """In place of `optimizer.step()`: that, with all that the recipe does before and after it.

        Args:
            optimizer: Of `param_groups`.
            scaler: In place of `scaler.step(optimizer)`; gradients are unscaled here, and `scaler.update()` stays
                yours. A step that it skips changes nothing and counts as none.

        Raises:
            ConfigError: If the optimizer lacks what was inserted, or decays weights that the recipe decays.
        """
        if scaler is not None and scaler.is_enabled() and not unscale(optimizer, scaler):
            scaler.step(optimizer)
            return
        self.before_step(optimizer)
        if scaler is not None:
            scaler.step(optimizer)
        else:
            optimizer.step()
        self.after_step(optimizer)

    def before_step(self, optimizer: Optimizer) -> None:
        """What the recipe does before the optimizer's step: clipping and decay; gradients must be unscaled.

        Args:
            optimizer: Of `param_groups`.

        Raises:
            ConfigError: As for `step`.
        """
        weights = self._weights()
        if optimizer is not self._checked:
            decays = any(isinstance(one, WeightDecay) for one in self.methods)
            check_optimizer(optimizer, weights, self._strengths.trained, decays)
            self._checked = optimizer
        for average in self._averages:
            average.begin(_tensors(weights))
        self._update("before", weights, optimizer)

    def after_step(self, optimizer: Optimizer) -> None:
        """What the recipe does after the optimizer's step: projections, averages, and the strengths of the next step.

        Args:
            optimizer: Of `param_groups`.
        """
        weights = self._weights()
        self._update("after", weights, optimizer)
        self.count_step()
        for average in self._averages:
            average.move(_tensors(weights), self._clock)

    def count_step(self) -> None:
        """Count a step whose work was done elsewhere, as by a stack of models, and set the strengths of the next."""
        self.num_steps_done += 1
        self._strengths.set_progress(self._clock.progress)

    def finish(self, batches: Iterable[Any] | None = None, *, call: Call | None = None) -> nn.Module:
        """End the training: the average becomes the weights, and batch normalizations get their exact statistics.

        Args:
            batches: Over all training rows, as for `poise.recalibrate`; None leaves the statistics as they are.
            call: Likewise.

        Returns:
            The model, with its layers still in it: they are the identity in eval mode.

        Warns:
            PoiseWarning: If weights are averaged and their statistics cannot be computed for want of batches.
        """
        weights = _tensors(self._weights())
        averaged = [average.write(weights) for average in self._averages]
        if not batch_norms(self.model):
            return self.model
        if batches is not None:
            recalibrate(self.model, batches, call=call)
        elif any(averaged):
            warnings.warn(
                "The weights are averages now, and the batch statistics are those of the last weights. "
                "Call regimen.finish(loader).", PoiseWarning, stacklevel=2,
            )  # fmt: skip
        return self.model

    def should_stop(self, val_losses: Sequence[float]) -> bool:
        """Whether the recipe would stop here.

        Args:
            val_losses: Validation loss of every epoch so far.
        """
        return any(one.should_stop(list(val_losses)) for one in self._of(StopMethod))

    # Resuming

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed loop needs besides those of model and optimizer: counters and averages."""
        return {
            "num_steps_done": self.num_steps_done,
            "num_batches": self._num_batches,
            "layers": self._strengths.state_dict(),
            "averages": [average.state_dict() for average in self._averages],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, with masks, mixing, averages and strengths as if nothing had been between.

        Args:
            state: Of `state_dict`, of the same recipe in the same model.

        Raises:
            ConfigError: If it is of another one.
        """
        if set(state) != set(self.state_dict()) or len(state["averages"]) != len(self._averages):
            raise ConfigError("The state is of another recipe.", where="regimen.load_state_dict")
        self._strengths.load_state_dict(state["layers"])
        for average, one in zip(self._averages, state["averages"], strict=True):
            average.load_state_dict(one, _tensors(self._weights()))
        self.num_steps_done, self._num_batches = int(state["num_steps_done"]), int(state["num_batches"])
        self._strengths.set_progress(self._clock.progress)

    # Inner parts

    @property
    def _clock(self) -> Clock:
        # Without schedules nothing reads the last number but SWA, which `apply` asks it for.
        num_steps = self._course.num_steps or max(1, self.num_steps_done)
        return Clock(min(self.num_steps_done, num_steps), self._course.epoch_steps, num_steps)

    def _of(self, base: type[M]) -> list[M]:
        return [one for one in self.methods if isinstance(one, base)]

    def _weights(self) -> dict[str, Weight]:
        return {name: one for name, one in weights_of(self.model).items() if one.tensor.requires_grad}

    def _update(self, moment: str, weights: Mapping[str, Weight], optimizer: Optimizer) -> None:
        methods = [one.at(self._clock.progress) for one in self._of(UpdateMethod)]
        update(methods, moment, weights, self._turned, optimizer)


def _tensors(weights: Mapping[str, Weight]) -> dict[str, Tensor]:
    return {name: one.tensor for name, one in weights.items()}
