"""What in a network draws random numbers in training: layers by their type, functions by their name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from poise.nn import BatchNorm, LayerNorm, Stochastic

LOOKED_FOR = (
    "torch's and Poise's dropout layers with p > 0, attention and recurrent layers with dropout > 0, calls of "
    "F.dropout and its relatives, of scaled_dot_product_attention with dropout_p, and modules that draw random numbers "
    "if their own `training` is on, such as DropPath"
)
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, BatchNorm, LayerNorm)
_DROPOUTS = (nn.modules.dropout._DropoutNd,)
# Functions with (input, p, training), and what they call the flag.
_FLAGS: dict[Callable[..., Any], str] = {
    **dict.fromkeys(
        (
            functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d,
            functional.alpha_dropout, functional.feature_alpha_dropout,
        ),
        "training",
    ),
    **dict.fromkeys(
        (
            torch.dropout, torch.dropout_, torch.alpha_dropout, torch.alpha_dropout_, torch.feature_dropout,
            torch.feature_dropout_, torch.feature_alpha_dropout, torch.feature_alpha_dropout_, torch.native_dropout,
        ),
        "train",
    ),
}  # fmt: skip
_ATTENTION = functional.scaled_dot_product_attention
_DRAWS = {
    "bernoulli", "bernoulli_", "exponential_", "geometric_", "multinomial", "normal", "normal_", "poisson", "rand",
    "rand_like", "randint", "randint_like", "randn", "randn_like", "random_", "randperm", "uniform_",
}  # fmt: skip


def is_source(module: nn.Module) -> bool:
    """Whether a layer is known, by its type and strength, to draw in training."""
    if isinstance(module, Stochastic):
        return module.is_active()
    if isinstance(module, _DROPOUTS):
        return bool(module.p > 0)
    if isinstance(module, nn.MultiheadAttention):
        return bool(module.dropout > 0)
    return isinstance(module, nn.RNNBase) and module.dropout > 0 and module.num_layers > 1


def cuda_devices(model: nn.Module) -> list[int]:
    """Whose random states a pass may change, beside the CPU's."""
    return sorted({one.device.index for one in model.parameters() if one.device.type == "cuda"})


def flag_readers(model: nn.Module) -> dict[str, nn.Module]:
    """Modules, by path, that are neither torch's nor ours, and no normalization, and whose code reads `training`."""
    return {name: module for name, module in model.named_modules() if _reads_flag(module)}


def _reads_flag(module: nn.Module) -> bool:
    home = type(module).__module__
    if home.startswith(("torch.nn.", "poise.nn.")) or isinstance(module, (*_NORMS, *_DROPOUTS, Stochastic)):
        return False
    return any("training" in code.co_names for code in _codes_of(type(module)))


def _codes_of(kind: type) -> Iterator[CodeType]:
    for base in kind.__mro__:
        if base is nn.Module:
            return
        for made in vars(base).values():
            function = inspect.unwrap(made) if callable(made) else made
            code = getattr(function, "__code__", None)
            if code is not None:
                yield from _nested(code)


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def draws(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call draws random numbers, or would in training."""
    if function in _FLAGS:
        return bool(dropout_p(args, kwargs) > 0)
    if function is _ATTENTION:
        return bool(kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0) > 0)
    if function is functional.multi_head_attention_forward:
        return bool(kwargs.get("dropout_p", args[10] if len(args) > 10 else 0.0) > 0)
    return getattr(function, "__name__", "") in _DRAWS


def dropout_p(args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    """The p of a call of dropout."""
    found: float = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
    return found


def in_mc_mode(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call as sampling wants them: dropout on, running statistics of batch normalization kept."""
    if function in _FLAGS:
        return _flagged(args, kwargs, _FLAGS[function], 2, value=True)
    if function is functional.multi_head_attention_forward:
        return _flagged(args, kwargs, "training", 13, value=True)
    if function is functional.batch_norm and kwargs.get("running_mean", args[1] if len(args) > 1 else None) is not None:
        return _flagged(args, kwargs, "training", 5, value=False)
    return args, kwargs


def _flagged(
    args: tuple[Any, ...], kwargs: dict[str, Any], name: str, place: int, *, value: bool
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if len(args) > place:
        return (*args[:place], value, *args[place + 1 :]), kwargs
    return args, {**kwargs, name: value}
