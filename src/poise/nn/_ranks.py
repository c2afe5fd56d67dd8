"""Sums over the ranks of a process group, with gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def has_ranks() -> bool:
    """Whether this process is one of several of a `torch.distributed` group."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_ranks(part: Tensor) -> Tensor:
    """The sum over all ranks; its gradient is summed over them, too, as each rank's loss depends on every part."""
    if not has_ranks():
        return part
    total: Tensor = _SumOverRanks.apply(part)  # type: ignore[no-untyped-call]
    return total


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, part: Tensor) -> Tensor:
        total = part.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, grad: Tensor) -> Any:
        return sum_over_ranks(grad)
