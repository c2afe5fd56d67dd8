"""Many tensors as views of one vector: optimizer, averages and checkpoints are then single operations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def flatten_(tensors: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """A vector that holds all `tensors`; each becomes a view of its part."""
    vector = torch.cat([tensor.detach().reshape(-1).to(dtype) for tensor in tensors] or [torch.empty(0, dtype=dtype)])
    for tensor, part in zip(tensors, _parts(vector, tensors), strict=True):
        tensor.data = part
    return vector


def flatten_gradients_(parameters: Sequence[nn.Parameter]) -> Tensor:
    """A zero vector; the gradient of each parameter becomes a view of its part, into which autograd accumulates."""
    dtype = parameters[0].dtype
    vector = torch.zeros(sum(parameter.numel() for parameter in parameters), dtype=dtype)
    for parameter, part in zip(parameters, _parts(vector, parameters), strict=True):
        parameter.grad = part
    return vector


def running_statistics(network: nn.Module) -> list[Tensor]:
    """The floating-point buffers that training or recalibration moves: means and variances of normalizations."""
    return [
        buffer
        for name, buffer in network.named_buffers()
        if name.rpartition(".")[2] in ("running_mean", "running_var") and buffer is not None
    ]


def _parts(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    pieces = torch.split(vector, [tensor.numel() for tensor in like]) if like else ()
    return [piece.view(tensor.shape) for piece, tensor in zip(pieces, like, strict=True)]
