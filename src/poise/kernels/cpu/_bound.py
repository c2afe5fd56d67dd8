"""Calls of machine code, which takes addresses: at once, or kept for tensors that stay where they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

Run = Callable[[], Any]
_Some = Sequence[Any]
_Tensors = Sequence[Tensor | None]


def _addresses(tensors: _Tensors) -> list[int]:
    return [0 if one is None else one.data_ptr() for one in tensors]


class Calls:
    """Makes each call at once."""

    def kernel(self, function: Callable[..., Any], before: _Some, tensors: _Tensors, after: _Some) -> None:
        """function(*before, *addresses of the tensors, *after), 0 for None."""
        function(*before, *_addresses(tensors), *after)

    def plain(self, function: Callable[..., Any], *arguments: Any) -> None:
        """function(*arguments), which takes tensors."""
        function(*arguments)

    def fixed(self, one: Tensor, dtype: torch.dtype) -> Tensor:
        """The numbers of `one` in that dtype, one after the other; where they have to be copied, each time anew."""
        if one.dtype is dtype and one.is_contiguous():
            return one
        own = torch.empty(one.shape, dtype=dtype, device=one.device)
        self.plain(own.copy_, one)
        return own


class Later(Calls):
    """Keeps the calls in `runs`: all but the work itself is done once."""

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def kernel(self, function: Callable[..., Any], before: _Some, tensors: _Tensors, after: _Some) -> None:
        """As for `Calls`."""
        self.runs.append(_Bound(function, before, tensors, after))

    def plain(self, function: Callable[..., Any], *arguments: Any) -> None:
        """As for `Calls`."""
        self.runs.append(partial(function, *arguments))


class _Bound:
    """A call of machine code; it holds on to the tensors."""

    def __init__(self, function: Callable[..., Any], before: _Some, tensors: _Tensors, after: _Some) -> None:
        self._function, self._held = function, tensors
        self._arguments = *before, *_addresses(tensors), *after

    def __call__(self) -> Any:
        return self._function(*self._arguments)


NOW = Calls()
