"""Calls of machine code whose arguments are known beforehand: all but the work itself is done once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Run = Callable[[], Any]


class _At(int):
    """The address of a tensor, which lives as long as it."""

    tensor: Tensor


def at(one: Tensor | None) -> int:
    """Where a tensor lies, 0 for None; for an argument of `bound`."""
    if one is None:
        return 0
    address = _At(one.data_ptr())
    address.tensor = one
    return address


class bound:  # noqa: N801 # like functools.partial
    """function(*arguments), where addresses may come from `at`; it holds on to what lies there."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._function = function
        self._held = [one.tensor for one in arguments if isinstance(one, _At)]
        self._arguments = tuple(int(one) if isinstance(one, _At) else one for one in arguments)

    def __call__(self) -> Any:
        return self._function(*self._arguments)


def fixed(one: Tensor, dtype: torch.dtype, runs: list[Run]) -> Tensor:
    """The numbers of `one` in that dtype, one after the other; where they have to be copied, each time anew.

    Args:
        one: Any tensor of the CPU.
        dtype: Wanted.
        runs: Gets the copying, if there has to be any.
    """
    if one.dtype is dtype and one.is_contiguous():
        return one
    own = torch.empty(one.shape, dtype=dtype)
    runs.append(bound(own.copy_, one))
    return own
