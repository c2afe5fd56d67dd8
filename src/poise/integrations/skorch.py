"""A recipe in a training by skorch."""

from __future__ import annotations

from typing import Any

from torch import nn

from poise.integrations._extras import need
from poise.integrations._loop import Loop
from poise.recipe import Recipe
from poise.surgery import Regimen

need("skorch", "skorch")

from skorch.callbacks import Callback  # noqa: E402 - after its absence was spoken of

__all__ = ["RegimenCallback"]


class RegimenCallback(Callback):
    """Trains a skorch net with a recipe: its layers, penalties, decay, clipping, projections and averages.

    The layers are put in when `fit` begins, and the optimizer is made anew with their parameters. At the end averages
    become the weights, and batch normalizations get exact statistics over the training rows.

    Args:
        recipe: A `Recipe` without methods that change batches.
        example: A batch for the module, as for `poise.apply`.
        num_steps: Optimizer steps of the training; needed where a strength is scheduled, and by SWA.
        monitor: Column of the history that an EarlyStopping of the recipe watches.
        seed: Names masks and noise.

    Raises:
        ConfigError: If a method changes batches, or skorch is missing.

    Example:
        >>> from poise import Recipe
        >>> from poise.methods import Dropout
        >>> RegimenCallback(Recipe(methods=(Dropout(p=0.1),))).monitor
        'valid_loss'
    """

    def __init__(
        self, recipe: Recipe, *, example: Any = None, num_steps: int | None = None, monitor: str = "valid_loss",
        seed: int = 0,
    ) -> None:  # fmt: skip
        # As scikit-learn wants it: what was given stays as it was given, so that nets can be cloned.
        self.recipe, self.example, self.num_steps = recipe, example, num_steps
        self.monitor, self.seed = monitor, seed

    def initialize(self) -> RegimenCallback:
        """Forget earlier trainings."""
        self.loop = Loop(
            self.recipe, example=self.example, module="", num_steps=self.num_steps, call=None, seed=self.seed
        )
        return self

    @property
    def regimen(self) -> Regimen:
        """What was changed, from the start of the training on."""
        return self.loop.regimen

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **_: Any) -> None:
        """Put the layers in, and let the optimizer know their parameters."""
        if self.loop.start(net.module_):
            net.initialize_optimizer()

    def on_grad_computed(self, net: Any, named_parameters: Any, **_: Any) -> None:
        """Penalties, clipping, decay."""
        self.loop.before_step(net.optimizer_)

    def on_batch_end(self, net: Any, training: bool = False, **_: Any) -> None:
        """Projections, averages, schedules."""
        if training:
            self.loop.after_step()

    def on_epoch_end(self, net: Any, **_: Any) -> None:
        """Early stopping, as skorch's own does it."""
        if self.loop.should_stop(net.history[-1].get(self.monitor)):
            raise KeyboardInterrupt

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **_: Any) -> None:
        """Averages become the weights, statistics exact."""

        def infer(_module: nn.Module, batch: Any) -> Any:
            return net.infer(batch[0])

        self.loop.call = infer
        self.loop.finish(net.get_iterator(net.get_dataset(X, y), training=False))
