"""A recipe in any torch model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from poise._checks import Interval, check_integer
from poise._errors import ConfigError, PoiseError, PoiseWarning
from poise._random import Key
from poise.methods import SWA, AverageMethod, Method, NetworkMethod, Site
from poise.surgery._edit import apply_edits, check_editable, eval_outputs
from poise.surgery._graph._trace import graph_of
from poise.surgery._insertion._insert import plan
from poise.surgery._insertion._work import Work, summarize
from poise.surgery._ready import check_materialized, example_fails
from poise.surgery._regimen._regimen import Regimen
from poise.surgery._regimen._strengths import Course


class Optimizer(Protocol):
    """What is read of a recipe's optimizer: the factor on the learning rate of biases."""

    @property
    def bias_lr(self) -> float: ...


@runtime_checkable
class Prescription(Protocol):
    """What is read of a recipe."""

    @property
    def methods(self) -> tuple[Method, ...]: ...

    @property
    def optimizer(self) -> Optimizer: ...


def apply(
    recipe: Prescription, model: nn.Module, *, example: Any = None, num_steps: int | None = None,
    epoch_steps: int | None = None, num_classes: int | None = None, seed: int = 0,
) -> Regimen:  # fmt: skip
    """Put a recipe into any torch model, in place: its layers where they belong, the rest into what the loop calls.

    Where each layer goes, and why, is in docs/surgery.md; `regimen.diff()` says it for this model. All is done or
    nothing: with an example, eval-mode outputs are compared before and after, and whatever fails leaves the model as it
    was. `regimen.undo()` takes it out again. Compile or wrap the model afterwards.

    Args:
        recipe: A `Recipe`; its optimizer's `bias_lr` counts, its budget, learning rate and network do not.
        model: Changed in place.
        example: A batch that the model can be called with, as for `poise.recalibrate`; targets may follow. None reads
            the source by `torch.fx`, which knows no shapes: linear layers are then taken to see rows (B, D).
        num_steps: Optimizer steps of the whole training, ≥ 1; needed where a strength is scheduled, and by SWA.
        epoch_steps: Optimizer steps of an epoch, ≥ 1; SWA averages at its end, or after each step if it is None.
        num_classes: Of the targets; None for what the model returns for the example, where that is (B, C) or maps.
        seed: Names masks, noise and mixing. Ranks of an initialized `torch.distributed` draw numbers of their own.

    Raises:
        ConfigError: If a setting is out of range, methods exclude each other, or the model cannot be changed.
        DataError: If the model fails on the example.
        SurgeryError: If the change was not made; the model is as it was.

    Warns:
        PoiseWarning: If a method of the recipe finds no place at all.

    Example:
        >>> import poise
        >>> from poise.methods import BatchNorm, Dropout
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> regimen = poise.apply(poise.Recipe(methods=(BatchNorm(), Dropout(p=0.2))), model, example=torch.zeros(2, 4))
        >>> print(regimen.diff())
        0  .bias = None    BatchNorm: it would remove the bias again
        0  -> BatchNorm(8, eps=1e-05, momentum=0.1)    BatchNorm: between kernel and activation
        1  -> Dropout(p=0.2)    Dropout: after the last normalization, not next to the output
        >>> regimen.undo()

    Reference: Li et al., "Understanding the disharmony between dropout and batch normalization", CVPR 2019. Huang et
    al., "Deep networks with stochastic depth", ECCV 2016.
    """
    _check(recipe, model, num_steps, epoch_steps, num_classes)
    methods = recipe.methods
    network_methods = [one for one in methods if isinstance(one, NetworkMethod)]
    outputs = None if example is None else _outputs(model, example)
    work = _planned(network_methods, model, example)
    course = Course(
        num_steps, epoch_steps or 1, num_classes or _num_classes(outputs), recipe.optimizer.bias_lr, _key_of_rank(seed)
    )
    _warn_of_absent(network_methods, model, work)  # first, since a warning may be an error
    edits = apply_edits(model, work.edits, example=example)
    return Regimen(model, methods, edits=edits, placed=work.placed, notes=summarize(work.notes), course=course)


def _planned(methods: Sequence[NetworkMethod], model: nn.Module, example: Any) -> Work:
    if not methods:
        return Work()
    return plan(methods, model, graph_of(model, example), by_position=not isinstance(example, Mapping))


def _outputs(model: nn.Module, example: Any) -> list[Tensor]:
    try:
        return eval_outputs(model, example)
    except PoiseError:
        raise
    except Exception as error:  # whatever the model's own code raises
        raise example_fails(model, error) from error


def _check(
    recipe: object, model: nn.Module, num_steps: int | None, epoch_steps: int | None, num_classes: int | None
) -> None:
    if not isinstance(recipe, Prescription):
        raise ConfigError(f"`recipe` must be a Recipe, but got {type(recipe).__name__}.")
    check_editable(model)
    numbers = {"num_steps": num_steps, "epoch_steps": epoch_steps, "num_classes": num_classes}
    for name, number in numbers.items():
        if number is not None:
            check_integer(name, number, Interval(1))
    check_materialized(model)
    _check_methods(recipe.methods, num_steps)


def _check_methods(methods: Sequence[Method], num_steps: int | None) -> None:
    for kind, what in ((_normalizes, "normalize the same activations"), (_averages, "average the same weights")):
        several = [type(one).__name__ for one in methods if kind(one)]
        if len(several) > 1:
            raise ConfigError(f"{' and '.join(several)} {what}.", where="recipe", repair="Keep one of them.")
    timed = [type(one).__name__ for one in methods if one.is_scheduled or isinstance(one, SWA)]
    if timed and num_steps is None:
        raise ConfigError(
            f"{', '.join(timed)} depends on how long the training is.", where="poise.apply",
            repair="Give num_steps=, the number of optimizer steps.",
        )  # fmt: skip


def _normalizes(method: Method) -> bool:
    return isinstance(method, NetworkMethod) and method.layer(Site("norm", 1)) is not None


def _averages(method: Method) -> bool:
    return isinstance(method, AverageMethod)


def _num_classes(outputs: Sequence[Tensor] | None) -> int | None:
    """The width of (B, C) or of maps (B, C, H, W, ...); of three axes the last or the middle one may be classes."""
    if not outputs or outputs[0].ndim in (0, 1, 3):
        return None
    return outputs[0].shape[1]


def _key_of_rank(seed: int) -> Key:
    ranks = torch.distributed
    if ranks.is_available() and ranks.is_initialized() and ranks.get_world_size() > 1:
        return Key(seed).stream("rank", ranks.get_rank())
    return Key(seed)


def _warn_of_absent(methods: Sequence[NetworkMethod], model: nn.Module, work: Work) -> None:
    for method in methods:
        if type(method) not in work.found:
            name = type(method).__name__
            reasons = [note.text.partition(": ")[2] for note in work.notes if note.text.startswith(f"skipped {name}:")]
            warnings.warn(
                f"{name} found no place in {type(model).__name__}: {reasons[0] if reasons else 'it has no such site'}.",
                PoiseWarning, stacklevel=3,
            )  # fmt: skip
