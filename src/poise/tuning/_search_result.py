"""What a search of recipes for a user's own model found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import nn

from poise.functional.schedule import Schedule
from poise.recipe import Recipe, from_toml, to_toml
from poise.surgery import Regimen
from poise.tuning._trial import Trial


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What `poise.search` found. Printed, it is a table of the trials, the best first.

    Args:
        recipe: The best.
        model: Trained with it, in eval mode, with the weights of its best epoch.
        regimen: Of that recipe in that model: what was changed, and how to undo it.
        best: The trial it comes from.
        trials: All, by number, with recipe, losses at rungs, engine and seconds.
        reasons: Why trials were not trained in a stack, by number.
        train_loss: Over the training rows, in eval mode and without penalties, as all losses here.
        val_loss: Over the validation rows. They chose, so on new rows expect more.
        test_loss: Over the test rows, which were scored once, at the end; None without them.
        val_metric: As `val_loss`; None without a metric.
        test_metric: As `test_loss`.
        seconds: Of the whole search.

    Example:
        >>> import torch
        >>> from poise import Float, Recipe, SearchResult, Space, search
        >>> from poise.methods import Dropout
        >>> x, y = torch.randn(64, 3), torch.randn(64, 1)
        >>> result = search(
        ...     lambda: torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)),
        ...     Space(Recipe(methods=(Dropout(),)), {"Dropout.p": Float(0.0, 0.5)}),
        ...     train=(x[:32], y[:32]), val=(x[32:], y[32:]), loss=torch.nn.functional.mse_loss, trials=2, max_epochs=1,
        ... )
        >>> isinstance(result, SearchResult), len(result.trials), result.gap == result.val_loss - result.train_loss
        (True, 2, True)
    """

    recipe: Recipe
    model: nn.Module
    regimen: Regimen
    best: Trial
    trials: tuple[Trial, ...]
    reasons: Mapping[int, str]
    train_loss: float
    val_loss: float
    test_loss: float | None = None
    val_metric: float | None = None
    test_metric: float | None = None
    seconds: float = 0.0

    @property
    def gap(self) -> float:
        """Validation loss minus training loss; positive means overfitting."""
        return self.val_loss - self.train_loss

    def __str__(self) -> str:
        rows = [("trial", "end", "epochs", "val loss", "engine", "seconds", "recipe")]
        for one in sorted(self.trials, key=lambda one: (one is not self.best, one.loss, one.number)):
            loss = f"{one.loss:.4g}" if math.isfinite(one.loss) else "-"
            seconds, what = f"{one.seconds:.1f}", _in_short(one.recipe)
            rows.append((str(one.number), one.end, str(one.epochs), loss, one.engine, seconds, what))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, *self._scores(), *self._alone()])

    def _scores(self) -> list[str]:
        lines = [
            f"Trial {self.best.number}: training loss {self.train_loss:.4g}, validation loss {self.val_loss:.4g}"
            f"{_and(self.val_metric)}. The validation rows chose it, so on new rows expect a higher loss."
        ]
        if self.test_loss is not None:
            lines.append(
                f"Test loss {self.test_loss:.4g}{_and(self.test_metric)}, of rows that nothing looked at before."
            )
        return lines

    def _alone(self) -> list[str]:
        counts: dict[str, list[int]] = {}
        for number, reason in self.reasons.items():
            counts.setdefault(reason, []).append(number)
        return [f"Trained alone: {len(numbers)} trials, since {reason}." for reason, numbers in counts.items()]


def _in_short(recipe: Recipe) -> str:
    """The learning rate, and the methods with what differs from their defaults."""
    lr = recipe.optimizer.lr
    parts = [f"lr {lr.start if isinstance(lr, Schedule) else lr:.3g}"]
    for method in recipe.methods:
        values = {one.name: getattr(method, one.name) for one in fields(method)}
        told = [f"{name}={_digits(values[name])}" for name in values if values[name] != getattr(type(method), name)]
        parts.append(type(method).__name__ + (f"({', '.join(told)})" if told else ""))
    return ", ".join(parts)


def _digits(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else repr(value)


def _and(metric: float | None) -> str:
    return "" if metric is None else f" (metric {metric:.4g})"


def trial_numbers(trial: Trial) -> dict[str, Any]:
    """A trial as JSON takes it."""
    return {
        "number": trial.number, "recipe": to_toml(trial.recipe), "origin": trial.origin,
        "params": None if trial.params is None else dict(trial.params), "end": trial.end, "engine": trial.engine,
        "rungs": {str(epochs): loss for epochs, loss in trial.rungs.items()}, "seconds": trial.seconds,
        "folds": {str(fold): loss for fold, loss in trial.folds.items()},
    }  # fmt: skip


def trial_of(numbers: Mapping[str, Any]) -> Trial:
    """The trial whose `trial_numbers` these are."""
    losses = {name: {int(place): float(loss) for place, loss in numbers[name].items()} for name in ("rungs", "folds")}
    return Trial(**{**numbers, **losses, "recipe": from_toml(numbers["recipe"])})
