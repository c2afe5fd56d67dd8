"""Running statistics: machine code beside plain torch, and what autograd must notice."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from poise.kernels.running import move_running, reference


def _statistics(columns, dtype=torch.float32):
    generator = torch.Generator().manual_seed(columns)
    mean, var = (torch.randn(columns, generator=generator, dtype=dtype) for _ in range(2))
    rstd, running = (torch.rand(columns, generator=generator, dtype=dtype) + 0.01 for _ in range(2))
    return mean, rstd, var.abs(), running


@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("columns", [1, 15, 64, 1001])
def test_machine_code_rounds_as_torch_does(columns, momentum):
    mean, rstd, center, spread = _statistics(columns)
    twins = center.clone(), spread.clone()
    move_running(mean, rstd, center, spread, 1e-5, momentum, 37)
    reference(mean, rstd, *twins, 1e-5, momentum, 37)
    assert torch.equal(center, twins[0])
    assert torch.equal(spread, twins[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_they_are_those_of_batch_norm(dtype):
    x = torch.randn(50, 7, dtype=dtype) * 3 + 1
    norm = nn.BatchNorm1d(7, momentum=0.3, dtype=dtype)
    center, spread = norm.running_mean.clone(), norm.running_var.clone()
    mean, var = x.mean(0), x.var(0, correction=0)
    move_running(mean, (var + norm.eps).rsqrt(), center, spread, norm.eps, 0.3, 50)
    norm(x)
    torch.testing.assert_close(center, norm.running_mean)
    torch.testing.assert_close(spread, norm.running_var)


def test_autograd_sees_that_they_moved():
    mean, rstd, center, spread = _statistics(5)
    x = torch.randn(3, 5, requires_grad=True)
    loss = (x * center).sum()
    move_running(mean, rstd, center, spread, 1e-5, 0.1, 10)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
