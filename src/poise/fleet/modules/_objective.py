"""What is minimized: the loss of a batch, and what a recipe adds to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from poise.fleet.modules._job import Job
from poise.fleet.modules._source import Pair
from poise.methods import L2, LossMethod, Weight
from poise.recipe import Recipe
from poise.surgery._graph._call import call_model
from poise.surgery._regimen._objective import penalty_of


class Reader(nn.Module):
    """A model whose only argument is what a batch holds for it, whatever that is: a tensor, tuple or dict.

    Args:
        model: Any.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, x: Any) -> Any:
        """What the model makes of x."""
        return call_model(self.model, x)


def outputs_of(model: nn.Module, pair: Pair) -> Pair:
    """What `model` makes of x, and y where that lies."""
    outputs = call_model(model, pair[0])
    return outputs, pair[1].to(outputs.device) if isinstance(outputs, Tensor) else pair[1]


def reads_outputs(recipe: Recipe) -> bool:
    """Whether the recipe's penalty depends on what the model returns."""
    return any(type(one) is not L2 for one in recipe.of(LossMethod))


def objective(
    job: Job, methods: Sequence[LossMethod], weights: Mapping[str, Weight], outputs: Any, y: Tensor, *, reads: bool
) -> Tensor:
    """The loss and the penalty of a batch.

    Args:
        job: Says the loss.
        methods: At the strengths of this step.
        weights: That are trained.
        outputs: Of the model.
        y: Targets.
        reads: Of `reads_outputs`.
    """
    loss = job.loss(outputs, y)
    if not methods:
        return loss
    return loss + penalty_of(methods, weights, outputs if reads else None, y if reads else None)
