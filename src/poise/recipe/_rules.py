"""Combinations that are wrong or pointless, each as one rule with its reason and its repair."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from poise._errors import ConfigError, PoiseWarning
from poise.functional.schedule import Strength, value_at
from poise.methods import (
    EMA,
    L1,
    L2,
    SWA,
    AlphaDropout,
    BatchNorm,
    Dropout,
    DropPath,
    EarlyStopping,
    GroupLasso,
    LabelSmoothing,
    LayerNorm,
    MaxNorm,
    Mixup,
    WeightDecay,
)
from poise.recipe._recipe import Recipe

Severity = Literal["error", "warning"]
_KEEP_LIKE = 0.8
_TF_LIKE = 0.5
_MANY_INPUTS = 0.2
_FEW_ROWS = 16
_TINY_LR = 0.01


@dataclass(frozen=True)
class Issue:
    """One thing that is wrong with a recipe.

    Args:
        id: Stable name of the rule.
        severity: "error" or "warning".
        reason: What is wrong and why.
        repair: What to do.

    Example:
        >>> from poise.recipe import Recipe, check_recipe
        >>> from poise.methods import EMA, SWA
        >>> [issue.id for issue in check_recipe(Recipe(methods=(EMA(), SWA()))) if issue.severity == "error"]
        ['W13']
    """

    id: str
    severity: Severity
    reason: str
    repair: str

    def __str__(self) -> str:
        return f"{self.id}: {self.reason} {self.repair}"


@dataclass(frozen=True)
class _Rule:
    issue: Issue
    applies: Callable[[Recipe], bool]


def _has(*kinds: type) -> Callable[[Recipe], bool]:
    return lambda recipe: all(recipe.get(kind) is not None for kind in kinds)


def _dropout(recipe: Recipe) -> Dropout:
    return recipe.get(Dropout) or Dropout(p=0.0)


def _dropouts(recipe: Recipe) -> list[Dropout | AlphaDropout | DropPath]:
    return [one for one in recipe.methods if isinstance(one, Dropout | AlphaDropout | DropPath)]


def _largest(strength: Strength) -> float:
    return strength if isinstance(strength, int | float) else max(strength.values)


def _decays(recipe: Recipe, *roles: str) -> bool:
    decay = recipe.get(WeightDecay)
    return decay is not None and any(role in decay.roles for role in roles)


def _rule(rule: str, severity: Severity, reason: str, repair: str, applies: Callable[[Recipe], bool]) -> _Rule:
    return _Rule(Issue(rule, severity, reason, repair), applies)


_RULES = (
    _rule(
        "B02", "error", "BatchNorm and LayerNorm normalize the same activations twice.", "Keep one of them.",
        _has(BatchNorm, LayerNorm),
    ),
    _rule(
        "B05", "warning", "BatchNorm on batches below 16 rows has noisy statistics.",
        "Raise `batch_size`, or use LayerNorm.",
        lambda recipe: _has(BatchNorm)(recipe) and recipe.budget.batch_size < _FEW_ROWS,
    ),
    _rule(
        "B05-ghost", "warning", "Ghost batches below 16 rows have noisy statistics.", "Raise `ghost_size`.",
        lambda recipe: 0 < (recipe.get(BatchNorm) or BatchNorm()).ghost_size < _FEW_ROWS,
    ),
    _rule(
        "B05-whole", "warning", "A ghost batch as large as the batch changes nothing.",
        "Lower `ghost_size`, or set it to 0.",
        lambda recipe: (recipe.get(BatchNorm) or BatchNorm()).ghost_size >= recipe.budget.batch_size,
    ),
    _rule(
        "B09", "warning", "A BatchNorm momentum above 0.5 looks like the weight of the old value, as in TensorFlow; "
        "here it is the weight of the new batch.", "Give 1 - momentum.",
        lambda recipe: (recipe.get(BatchNorm) or BatchNorm()).momentum > _TF_LIKE,
    ),
    _rule(
        "B38", "warning", "MaxNorm on weights that feed a BatchNorm does not change the function.",
        "Leave MaxNorm out, or BatchNorm.", _has(BatchNorm, MaxNorm),
    ),
    _rule(
        "D06", "warning", "A drop probability of 0.8 or more looks like a keep probability.", "Give 1 - p.",
        lambda recipe: any(_largest(one.p) >= _KEEP_LIKE for one in _dropouts(recipe)),
    ),
    _rule(
        "D07", "warning", "Dropout upstream of a BatchNorm shifts the variance that it sees in eval.",
        'Use where="auto" and input_p=0, so that dropout comes after the last BatchNorm.',
        lambda recipe: _has(BatchNorm, Dropout)(recipe)
        and (_dropout(recipe).where == "all" or _largest(_dropout(recipe).input_p) > 0),
    ),
    _rule(
        "D07-alpha", "warning", "AlphaDropout upstream of a BatchNorm changes what it sees between training and eval.",
        "Leave one of them out; SELU networks need no normalization.", _has(BatchNorm, AlphaDropout),
    ),
    _rule(
        "D11", "warning", "Dropout breaks the mean and variance that SELU keeps.", "Use AlphaDropout.",
        lambda recipe: _has(Dropout)(recipe) and recipe.network.activation == "selu",
    ),
    _rule(
        "D11-alpha", "error", "AlphaDropout lets units saturate where SELU does, and no other activation does.",
        'Use Dropout, or activation = "selu".',
        lambda recipe: _has(AlphaDropout)(recipe) and recipe.network.activation != "selu",
    ),
    _rule(
        "D11-both", "error", "Dropout and AlphaDropout would both drop the hidden activations.", "Keep one of them.",
        _has(AlphaDropout, Dropout),
    ),
    _rule(
        "D16", "warning", "Input dropout above 0.2 hides much of a table.", "Lower `input_p`.",
        lambda recipe: _largest(_dropout(recipe).input_p) > _MANY_INPUTS,
    ),
    _rule(
        "D24", "error", "DropPath skips residual branches, but this network has none.", "Set network.residual = true.",
        lambda recipe: _has(DropPath)(recipe) and not recipe.network.residual,
    ),
    _rule(
        "W02", "warning", "Decay on norms, biases, embeddings or scales pulls them to zero without making the network "
        "simpler.", 'Use roles = ["kernel"].',
        lambda recipe: _decays(recipe, "bias", "norm", "embedding", "scale"),
    ),
    _rule(
        "W05", "error", "L2 and WeightDecay shrink the same weights twice.", "Keep WeightDecay.",
        lambda recipe: _has(L2)(recipe) and _decays(recipe, "kernel"),
    ),
    _rule(
        "W06", "warning", "L1 and GroupLasso both shrink the same kernels to zero.", "Keep one of them.",
        _has(L1, GroupLasso),
    ),
    _rule(
        "W13", "error", "EMA and SWA are two averages of the same weights.", "Keep one of them.", _has(EMA, SWA),
    ),
    _rule(
        "W13-lr", "warning", "SWA averages weights that hardly move once the learning rate is almost zero.",
        "Use a constant learning rate, or end it higher.",
        lambda recipe: _has(SWA)(recipe)
        and value_at(recipe.optimizer.lr, 1.0) < _TINY_LR * _largest(recipe.optimizer.lr),
    ),
    _rule(
        "E08", "warning", "EarlyStopping with a patience as long as the training never stops it.",
        "Lower `patience`, or raise `max_epochs`.",
        lambda recipe: _has(EarlyStopping)(recipe)
        and (recipe.get(EarlyStopping) or EarlyStopping()).patience >= (recipe.budget.max_epochs or math.inf),
    ),
    _rule(
        "E09", "warning", "LabelSmoothing and Mixup both soften the targets.", "Keep one of them.",
        _has(LabelSmoothing, Mixup),
    ),
)  # fmt: skip


def check_recipe(recipe: Recipe) -> tuple[Issue, ...]:
    """What is wrong or pointless in a recipe, errors first.

    Args:
        recipe: Any recipe.

    Example:
        >>> from poise.recipe import check_recipe, known
        >>> check_recipe(known("cocktail"))
        ()
    """
    found = [rule.issue for rule in _RULES if rule.applies(recipe)]
    return tuple(sorted(found, key=lambda issue: issue.severity))


def validate_recipe(recipe: Recipe) -> None:
    """Refuse a recipe that is wrong, and warn of one that is pointless.

    Args:
        recipe: Any recipe.

    Raises:
        ConfigError: If a rule of severity "error" applies.

    Warns:
        PoiseWarning: For each rule of severity "warning" that applies.

    Example:
        >>> from poise.recipe import known, validate_recipe
        >>> validate_recipe(known("dropout-2014"))
    """
    for issue in check_recipe(recipe):
        if issue.severity == "error":
            raise ConfigError(f"{issue.id}: {issue.reason}", where="recipe", repair=issue.repair)
        warnings.warn(str(issue), PoiseWarning, stacklevel=2)
