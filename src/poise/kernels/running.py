"""How the statistics of a batch move the running ones, by the fastest way there is."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from poise.kernels.cpu import _running as cpu


def reference(
    mean: Tensor, rstd: Tensor, running_mean: Tensor, running_var: Tensor, eps: float, momentum: float, num_rows: int
) -> None:
    """`move_running` in plain torch."""
    running_mean.lerp_(mean.to(running_mean.dtype), momentum)
    # The biased variance is what is left of 1 / rstd² without eps, in the precision of the kernel.
    var = rstd.pow(-2).sub_(eps).to(running_var.dtype)
    running_var.mul_(1 - momentum).add_(var, alpha=momentum * num_rows / (num_rows - 1))


def move_running(
    mean: Tensor, rstd: Tensor, running_mean: Tensor, running_var: Tensor, eps: float, momentum: float, num_rows: int
) -> None:
    """running ← (1 - momentum) · running + momentum · batch, with the unbiased variance of the batch.

    Args:
        mean: (C,) of the batch.
        rstd: (C,), 1 / sqrt(biased variance + eps).
        running_mean: (C,), changed.
        running_var: (C,), changed.
        eps: As in rstd.
        momentum: In [0, 1].
        num_rows: N > 1 of the batch.
    """
    tensors = mean, rstd, running_mean, running_var
    eager = not torch.compiler.is_compiling()
    if eager and all(one.is_cpu and one.dtype is torch.float32 and one.is_contiguous() for one in tensors):
        cpu.move_running(*tensors, eps, momentum, num_rows)
        increment_version((running_mean, running_var))  # autograd must see that they changed
    else:
        reference(*tensors, eps, momentum, num_rows)
