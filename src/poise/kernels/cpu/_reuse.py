"""Memory of large tensors that died, for the next ones of their size.

The system clears the memory that it gives. For tens of MiB that takes as long as a pass over it, and a training frees
and asks for the same sizes step by step. At most `_MOST` blocks of `_LARGEST` bytes are kept.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, cast
from weakref import finalize

import torch
from torch import Tensor

_LARGEST, _MOST = 1 << 26, 8
_FREE: OrderedDict[int, Tensor] = OrderedDict()  # by address, the oldest first


def take(num_bytes: int) -> Tensor | None:
    """A block of so many bytes that nobody uses."""
    for address, block in tuple(_FREE.items()):
        # None if another thread was faster.
        if block.nbytes == num_bytes and _FREE.pop(address, None) is not None:
            return block
    return None


def lend(block: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """A tensor in `block`, whose bytes come back here when the last tensor that shares them is gone."""
    storage: Any = block.untyped_storage()
    if block.nbytes <= _LARGEST:
        held = block.numpy()[:]  # an array of its own, which torch lets go with the storage
        finalize(held, _give_back, block).atexit = False
        storage = torch.from_numpy(held).untyped_storage()
    tensor: Any = torch.empty(0, dtype=dtype)  # not a view, which could not be changed in place after a function
    return cast(Tensor, tensor.set_(storage, 0, shape))


def _give_back(block: Tensor) -> None:
    _FREE[block.data_ptr()] = block
    while len(_FREE) > _MOST:
        _FREE.popitem(last=False)
