"""A recipe in a training by the Trainer of transformers."""

from __future__ import annotations

from typing import Any

from poise.integrations._extras import need
from poise.integrations._loop import Loop
from poise.recipe import Recipe
from poise.surgery import Regimen
from poise.surgery._graph._call import Call

need("transformers", "transformers", "accelerate")

from transformers import (  # noqa: E402 - after its absence was spoken of
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

__all__ = ["RegimenCallback"]


class RegimenCallback(TrainerCallback):
    """Trains a model of transformers with a recipe: its layers, penalties, decay, clipping, projections and averages.

    Give it to `Trainer(callbacks=[...])`: the layers are put in when the Trainer is made, before its optimizer. At the
    end averages become the weights, and batch normalizations get exact statistics over the training rows.

    Args:
        recipe: A `Recipe` without methods that change batches.
        example: A batch for the regularized part, as for `poise.apply`.
        module: Path of the regularized part within the model; "" for all of it.
        num_steps: Optimizer steps of the training; needed where a strength is scheduled, and by SWA.
        monitor: Metric that an EarlyStopping of the recipe watches, once for each evaluation.
        call: Runs the regularized part on a batch of the training loader; None for `poise.recalibrate`'s way.
        seed: Names masks and noise.

    Raises:
        ConfigError: If a method changes batches, or transformers or accelerate is missing.

    Example:
        >>> from poise import Recipe
        >>> from poise.methods import Dropout
        >>> callback = RegimenCallback(Recipe(methods=(Dropout(p=0.1),)), module="classifier")
        >>> callback.loop.module
        'classifier'
    """

    def __init__(
        self, recipe: Recipe, *, example: Any = None, module: str = "", num_steps: int | None = None,
        monitor: str = "eval_loss", call: Call | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        self.loop = Loop(recipe, example=example, module=module, num_steps=num_steps, call=call, seed=seed)
        self.monitor = monitor

    @property
    def regimen(self) -> Regimen:
        """What was changed, from the making of the Trainer on."""
        return self.loop.regimen

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Put the layers in."""
        self.loop.start(kwargs["model"])

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Penalties, clipping, decay."""
        self.loop.before_step(kwargs["optimizer"])

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Projections, averages, schedules."""
        self.loop.after_step()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Early stopping."""
        if self.loop.should_stop(kwargs["metrics"].get(self.monitor)):
            control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Averages become the weights, statistics exact."""
        self.loop.finish(kwargs["train_dataloader"])
