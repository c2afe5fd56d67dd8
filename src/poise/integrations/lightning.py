"""A recipe in a training by Lightning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poise.integrations._extras import need
from poise.integrations._loop import Loop
from poise.recipe import Recipe
from poise.surgery import Regimen
from poise.surgery._graph._call import Call

need("lightning", "lightning")

from lightning.pytorch import Callback  # noqa: E402 - after its absence was spoken of

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from torch.optim import Optimizer

__all__ = ["RegimenCallback"]


class RegimenCallback(Callback):
    """Trains a LightningModule with a recipe: its layers, penalties, decay, clipping, projections and averages.

    The layers are put in before `configure_optimizers` is called; at the end averages become the weights, and batch
    normalizations get exact statistics over the training rows.

    Args:
        recipe: A `Recipe` without methods that change batches.
        example: A batch for the regularized part, as for `poise.apply`.
        module: Path of the regularized part within the LightningModule; "" for all of it.
        num_steps: Optimizer steps of the training; needed where a strength is scheduled, and by SWA.
        monitor: Logged metric that an EarlyStopping of the recipe watches, once for each validation.
        call: Runs the regularized part on a batch of the training loader; None for the way of `poise.recalibrate`.
        seed: Names masks and noise.

    Raises:
        ConfigError: If a method changes batches, or Lightning is missing.

    Example:
        >>> from poise import Recipe
        >>> from poise.methods import Dropout
        >>> callback = RegimenCallback(Recipe(methods=(Dropout(p=0.1),)), module="net")
        >>> callback.loop.module
        'net'
    """

    def __init__(
        self, recipe: Recipe, *, example: Any = None, module: str = "", num_steps: int | None = None,
        monitor: str = "val_loss", call: Call | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        self.loop = Loop(recipe, example=example, module=module, num_steps=num_steps, call=call, seed=seed)
        self.monitor = monitor

    @property
    def regimen(self) -> Regimen:
        """What was changed, from the start of the training on."""
        return self.loop.regimen

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put the layers in."""
        if stage == "fit":
            self.loop.start(pl_module)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Penalties, clipping, decay."""
        self.loop.before_step(optimizer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Projections, averages, schedules."""
        self.loop.after_step()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Early stopping."""
        found = trainer.callback_metrics.get(self.monitor)
        if not trainer.sanity_checking and self.loop.should_stop(None if found is None else float(found)):
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Averages become the weights, statistics exact."""
        self.loop.finish(trainer.train_dataloader)
