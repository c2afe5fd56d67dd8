"""What a model and an example must be before a change of the model can be checked."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map

from poise._errors import ConfigError, DataError, SurgeryError
from poise.surgery._graph._call import tensors_of


def check_materialized(model: nn.Module) -> None:
    """Raise ConfigError where a weight of `model` has no values yet."""
    for name, one in [*model.named_parameters(), *model.named_buffers()]:
        if nn.parameter.is_lazy(one):
            raise ConfigError(f"Lazy {name!r} has no shape yet.", repair="Call the model once, on a batch.")
        if one.is_meta:
            raise ConfigError(
                f"{name!r} is on the meta device and has no values.",
                repair="Load weights, after model.to_empty(device=...).",
            )


def check_example(example: Any) -> None:
    """Raise unless `example` holds numbers."""
    tensors = tensors_of(example)
    if any(one.is_meta for one in tensors):
        raise ConfigError("`example` must have values, but it is on the meta device.")
    if not any(one.numel() for one in tensors):
        raise DataError("The example holds no numbers.", repair="Give a batch of at least one row.")


def copy_of(model: nn.Module) -> nn.Module:
    """A deep copy; SurgeryError where a part of the model refuses."""
    # What is made of parameters anew in each pass, as by torch.nn.utils.weight_norm: deepcopy takes leaves alone.
    attributes = [one for module in model.modules() for one in vars(module).values()]
    made = {id(one): one.detach().clone() for one in attributes if isinstance(one, Tensor) and not one.is_leaf}
    try:
        return deepcopy(model, made)
    except Exception as error:  # whatever the parts of a foreign model raise
        raise SurgeryError(f"{type(model).__name__} cannot be copied: {error}", repair="Mend its deepcopy.") from error


def example_fails(model: nn.Module, error: Exception) -> DataError:
    """The error for an example that a model cannot be called with."""
    return DataError(
        f"{type(model).__name__} fails on the example: {type(error).__name__}: {error}",
        repair="Give a batch that the model can be called with.",
    )


def doubled(example: Any) -> Any:
    """`example` in float64, for a model that is."""
    return tree_map(lambda one: one.double() if isinstance(one, Tensor) and one.is_floating_point() else one, example)
