"""Edits that put a faster layer in the place of one that computes the same."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from poise._random import Key
from poise.surgery._edit import Edit, Replace, Undo

SMALLEST = 2**14
"""Elements below which torch's own dropout is as fast, as measured."""
_DTYPES = (torch.float32, torch.float64, torch.bfloat16)


@dataclass(frozen=True)
class Swap(Edit):
    """Puts a layer in the place of another one whose parameters and buffers it has; undone, it hands them back."""

    layer: nn.Module

    def apply(self, model: nn.Module) -> Undo:
        old = model.get_submodule(self.where)
        self.layer.train(old.training)
        undo_replace = Replace(self.where, self.why, self.shift, self.layer).apply(model)

        def undo() -> None:
            undo_replace()
            # What `to` and `train` have done since was done to the layer that was there.
            old.training = self.layer.training
            old._parameters.update(self.layer._parameters)
            old._buffers.update(self.layer._buffers)

        return undo

    def line(self) -> str:
        return f"becomes {self.layer}"


@dataclass(frozen=True)
class Leave(Edit):
    """Changes nothing; the reader of a diff learns why."""

    def apply(self, _: nn.Module) -> Undo:
        return lambda: None

    def line(self) -> str:
        return "stays"


@dataclass(frozen=True)
class Reroute(Edit):
    """Sends `torch.nn.functional.dropout`, where it is called within a module, to a faster function."""

    def apply(self, model: nn.Module) -> Undo:
        host, hook = model.get_submodule(self.where), FastDropout()
        handles = [
            host.register_forward_pre_hook(hook.enter),
            # The first of all, so that other hooks are left alone; always, so that it ends when the module fails.
            host.register_forward_hook(hook.leave, prepend=True, always_call=True),
        ]

        def undo() -> None:
            for handle in handles:
                handle.remove()

        return undo

    def line(self) -> str:
        return "functional dropout goes to the fast kernel"


class FastDropout:
    """Hooks around a module's `forward`; they copy and pickle with the module."""

    def __init__(self) -> None:
        self.entered: list[ExitStack] = []

    def enter(self, module: nn.Module, _: Any) -> None:
        """Begin, in training; a graph that `torch.compile` makes keeps torch's dropout."""
        if module.training and not torch.compiler.is_compiling():
            ending = ExitStack()
            ending.enter_context(_Rerouted())
            self.entered.append(ending)

    def leave(self, *_: Any) -> None:
        """End what was begun."""
        if not torch.compiler.is_compiling() and self.entered:
            self.entered.pop().close()


class _Rerouted(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.dropout:
            return _dropout(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:  # noqa: A002
    """As torch's function, with torch's names."""
    fits = type(input) is Tensor and input.device.type == "cpu" and input.dtype in _DTYPES
    if not (fits and training and 0 < p < 1 and input.numel() >= SMALLEST) or inplace or _is_transformed():
        return functional.dropout(input, p, training, inplace)
    # A new key from torch's generator each time: seeds and checkpoints, which restore it, act as they do on torch's.
    key = Key(int(torch.randint(2**62, ())))
    if has_channels_last(input):
        return input * key.keep_mask(*input.movedim(1, -1).shape, p=p, dtype=input.dtype).movedim(-1, 1)
    return input * key.keep_mask(*input.shape, p=p, dtype=input.dtype)


def has_channels_last(x: Tensor) -> bool:
    """Whether channels lie next to each other in memory."""
    return x.ndim > 2 and x.movedim(1, -1).is_contiguous()


_is_transformed = torch._C._are_functorch_transforms_active
