"""How functions become kernels, and how tensors are handed to them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from poise.kernels import reference

# Kernels can read nothing of a module but constants of this type.
LANES = tl.constexpr(reference.LANES)
TILE_BLOCKS = tl.constexpr(reference.TILE_BLOCKS)
TILE = tl.constexpr(reference.LANES * reference.TILE_BLOCKS)

# For each dtype of x, the one in which is computed: torch's name and Triton's.
COMPUTED: dict[torch.dtype, tuple[torch.dtype, Any]] = {
    torch.float32: (torch.float32, tl.float32),
    torch.float64: (torch.float64, tl.float64),
    torch.bfloat16: (torch.float32, tl.float32),
}
_ALIGNMENT = 16


def kernel(function: Callable[..., Any]) -> Any:
    """A function that runs on the device, started by `launch` or called by another one.

    Its parameters are annotated with names of `triton.language`, since the compiler looks every name up there.
    """
    return triton.jit(function)


_MADE: dict[tuple[object, ...], Any] = {}


def launch(function: Any, kind: Hashable, programs: int, *arguments: object, num_warps: int = 4) -> None:
    """Start `programs` programs of a kernel. Products and sums may be fused, which Triton wants to be told.

    Triton looks at every argument anew in each call, which takes longer than small kernels run; so what it has made is
    called directly the next time.

    Args:
        function: The kernel.
        kind: Equal only in calls whose arguments are equal, but for tensors, which have the same dtypes. They all are
            aligned.
        programs: ≥ 1.
        arguments: Of the kernel.
        num_warps: Of a program.
    """
    name = (function, kind, torch.cuda.current_device() if torch.cuda.is_available() else -1)
    run = _MADE.get(name)
    if run is not None:
        run(*arguments)
        return
    made = function[(programs,)](*arguments, num_warps=num_warps, enable_fp_fusion=True)
    if made is not None:  # the interpreter makes nothing
        _MADE[name] = made[(programs, 1, 1)]


def on_device_of(x: Tensor) -> AbstractContextManager[object]:
    """Triton starts kernels on the current device: make it that of x."""
    if not x.is_cuda or x.get_device() == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(x.device)


def dense(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Contiguous and aligned: for other addresses, Triton makes other code, whose sums may differ in the last bit."""
    if dtype is not None and x.dtype is not dtype:
        x = x.to(dtype)
    x = x.contiguous()
    return x if x.data_ptr() % _ALIGNMENT == 0 else x.clone()


def optional(x: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """`dense`, of what may be missing."""
    return None if x is None else dense(x, dtype)


def settings_of(key: Tensor, step: Tensor, p: Tensor, on: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The settings in the dtypes and layout that kernels read."""
    return dense(key, torch.int64), dense(step, torch.int64), dense(p, torch.float64), dense(on, torch.bool)


def pieces(num: int, size: int) -> int:
    """How many pieces of `size` hold `num`."""
    return -(-num // size)


def tiles_of(num: int) -> int:
    """How many tiles of the mask hold `num` elements."""
    return pieces(num, reference.LANES * reference.TILE_BLOCKS)
