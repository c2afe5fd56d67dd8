"""A regimen in somebody else's training loop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from poise._errors import ConfigError
from poise.methods import BatchMethod
from poise.recipe import Recipe
from poise.surgery import Regimen, apply
from poise.surgery._graph._call import Call


class Loop:
    """What the hooks of a framework call, in the order of a training.

    Args:
        recipe: Without methods that change batches, which hooks cannot.
        example: As for `poise.apply`.
        module: Path of the part of the model that is regularized; "" for all of it.
        num_steps: As for `poise.apply`.
        call: As for `poise.recalibrate`.
        seed: As for `poise.apply`.

    Raises:
        ConfigError: If a method changes batches.
    """

    def __init__(
        self, recipe: Recipe, *, example: Any, module: str, num_steps: int | None, call: Call | None, seed: int
    ) -> None:
        mixing = [type(one).__name__ for one in recipe.of(BatchMethod)]
        if mixing:
            raise ConfigError(
                f"{' and '.join(mixing)} would change batches, and a callback cannot.",
                repair="Take it out of the recipe, or call poise.apply and regimen.batch in a loop of your own.",
            )
        self.recipe, self.example, self.module = recipe, example, module
        self.num_steps, self.call, self.seed = num_steps, call, seed
        self.val_losses: list[float] = []
        self._regimen: Regimen | None = None
        self._stepping: Optimizer | None = None

    @property
    def regimen(self) -> Regimen:
        """The regimen, from the start of the training on."""
        if self._regimen is None:
            raise ConfigError("There is no regimen before the training has begun.", repair="Train first.")
        return self._regimen

    def start(self, model: nn.Module) -> bool:
        """Put the recipe into `model`, unless it is in there; whether that was done."""
        part = model.get_submodule(self.module)
        if self._regimen is not None and self._regimen.model is part:
            return False
        self._regimen = apply(self.recipe, part, example=self.example, num_steps=self.num_steps, seed=self.seed)
        self.val_losses.clear()
        return True

    def before_step(self, optimizer: Optimizer) -> None:
        """Gradients are there, unscaled, and the optimizer is about to use them."""
        penalty = self.regimen.penalty()
        # Once a step and after accumulation; the gradient is that of adding it to the mean loss.
        if penalty.requires_grad:
            penalty.backward()  # type: ignore[no-untyped-call]
        self.regimen.before_step(optimizer)
        self._stepping = optimizer

    def after_step(self) -> None:
        """The optimizer may have made its step; if it has not, nothing is done."""
        if self._stepping is not None:
            optimizer, self._stepping = self._stepping, None
            self.regimen.after_step(optimizer)

    def should_stop(self, val_loss: float | None) -> bool:
        """Whether the recipe would stop after an epoch with this validation loss."""
        if val_loss is None:
            return False
        self.val_losses.append(val_loss)
        return self.regimen.should_stop(self.val_losses)

    def finish(self, batches: Iterable[Any] | None) -> None:
        """The training is over."""
        self.regimen.finish(batches, call=self.call)
