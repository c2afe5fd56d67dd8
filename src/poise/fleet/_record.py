"""What every engine does between two epochs: write down the scores, keep what predicts, see whether to stop."""

from __future__ import annotations

import math
from typing import NamedTuple

from poise.methods import StopMethod
from poise.train import Epoch, Plan, State


class Scores(NamedTuple):
    """Mean losses and scores of one epoch, in eval mode."""

    train_loss: float
    val_loss: float
    train_score: float
    val_score: float


def record_epoch(plan: Plan, state: State, scores: Scores, *, lr: float, seconds: float) -> bool:
    """Add an epoch to the history of `state`, and say whether its weights are to predict from now on.

    Those of the best epoch predict if the recipe stops early, else the latest. With losses that are not finite the
    training stops, and nothing is added.

    Args:
        plan: The training.
        state: Where it stands; `history`, `best_epoch` and `stopped` change.
        scores: Of this epoch.
        lr: Learning rate of its last step.
        seconds: That it took.
    """
    if not (math.isfinite(scores.train_loss) and math.isfinite(scores.val_loss)):
        state.stopped = "non-finite"
        return False
    spent = state.history[-1].seconds if state.history else 0.0
    is_best = scores.val_loss < state.val_loss
    state.history.append(Epoch(epoch=state.epoch + 1, lr=lr, seconds=spent + seconds, **scores._asdict()))
    stops = plan.recipe.of(StopMethod)
    serves = is_best or not stops
    if serves:
        state.best_epoch = state.epoch
    if any(method.should_stop([record.val_loss for record in state.history]) for method in stops):
        state.stopped = "early"
    if state.epoch >= plan.max_epochs:
        state.stopped = "budget"
    return serves
