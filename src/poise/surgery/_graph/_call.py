"""Calling any model with whatever a loader yields."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from poise._errors import DataError

Call = Callable[[nn.Module, Any], Any]
"""Runs a model on a batch: call(model, batch)."""


def call_model(model: nn.Module, batch: Any) -> Any:
    """What `model` makes of a batch, whose tensors go to the model's device first.

    A dict is given by name, those entries that `forward` takes. A list or plain tuple is given by position, as many
    entries as `forward` requires, so that targets at its end stay out. Anything else is the only argument.

    Args:
        model: Any.
        batch: A tensor, list, tuple, dict, or an object of the model's own.

    Raises:
        DataError: If the batch does not fit what `forward` takes.
    """
    args, kwargs = arguments_of(model, batch)
    return model(*args, **kwargs)


def arguments_of(model: nn.Module, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments that `call_model` gives `model` for a batch, by position and by name.

    Args:
        model: Any.
        batch: As for `call_model`.

    Raises:
        DataError: If the batch does not fit what `forward` takes.
    """
    batch = _moved(batch, model)
    parameters = inspect.signature(model.forward).parameters
    if isinstance(batch, Mapping):
        return (), _by_name(model, batch, parameters)
    if isinstance(batch, list) or type(batch) is tuple:
        return tuple(_by_position(model, batch, parameters)), {}
    return (batch,), {}


def tensors_of(thing: Any) -> list[Tensor]:
    """All tensors in a tensor, list, tuple, dict or dataclass, in order."""
    from torch.utils._pytree import tree_leaves

    found = []
    for leaf in tree_leaves(thing):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif hasattr(leaf, "to_tuple"):  # what Hugging Face models return, where it is not registered
            found.extend(tensors_of(leaf.to_tuple()))
    return found


def _by_name(model: nn.Module, batch: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    takes_all = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    chosen = {name: value for name, value in batch.items() if takes_all or name in parameters}
    missing = [name for name, one in parameters.items() if _is_required(one) and name not in chosen]
    if missing or not chosen:
        raise DataError(
            f"{type(model).__name__}.forward requires {missing or list(parameters)}, but the batch has {list(batch)}.",
            repair="Give call=lambda model, batch: ... that runs the model on a batch.",
        )
    return chosen


def _by_position(model: nn.Module, batch: Any, parameters: Mapping[str, inspect.Parameter]) -> Any:
    required = sum(_is_required(one) and one.kind is not one.KEYWORD_ONLY for one in parameters.values())
    if any(one.kind is one.VAR_POSITIONAL for one in parameters.values()) and required == 0:
        required = 1  # wrappers take anything; the first entry is what is read
    required = max(1, required)
    if len(batch) < required:
        raise DataError(
            f"{type(model).__name__}.forward requires {required} arguments, but the batch has {len(batch)} entries.",
            repair="Give call=lambda model, batch: ... that runs the model on a batch.",
        )
    return batch[:required]


def _is_required(parameter: inspect.Parameter) -> bool:
    is_named = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return is_named and parameter.default is parameter.empty


def _moved(batch: Any, model: nn.Module) -> Any:
    first = next(model.parameters(), None)
    device = torch.device("cpu") if first is None else first.device
    if device.type == "meta":
        return batch
    return tree_map(lambda one: one.to(device) if isinstance(one, Tensor) and one.device != device else one, batch)
