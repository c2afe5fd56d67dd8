"""Running statistics, moved in one call: twin of `kernels.running.reference`."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from poise.kernels.cpu._jit import entry, exact, rounded
from poise.kernels.cpu._pool import array_at

_LIKE = np.empty(0, np.float32)


def move_running(
    mean: Tensor, rstd: Tensor, running_mean: Tensor, running_var: Tensor, eps: float, momentum: float, num_rows: int
) -> None:
    """Arguments of `kernels.running.move_running`, contiguous float32."""
    addresses = (one.data_ptr() for one in (mean, rstd, running_mean, running_var))
    numbers = (np.float32(one) for one in (eps, momentum, 1 - momentum, momentum * num_rows / (num_rows - 1)))
    _move(_LIKE, *addresses, mean.numel(), *numbers)


@exact
def _moved(old: Any, new: Any, weight: Any) -> Any:
    """As torch.lerp rounds it; the others are as its kernels round them, too."""
    one = np.float32(1)
    return old + weight * (new - old) if weight < np.float32(0.5) else new - (new - old) * (one - weight)


@exact
def _variance(rstd: Any, eps: Any) -> Any:
    return np.float32(1) / (rstd * rstd) - eps


@rounded
def _product(a: Any, b: Any) -> Any:
    return a * b


@exact
def _grown(total: Any, var: Any, weight: Any) -> Any:
    return total + var * weight


@entry
def _move(
    like: Any, mean: int, rstd: int, running_mean: int, running_var: int, size: int, eps: Any, momentum: Any,
    kept: Any, weight: Any,
) -> None:  # fmt: skip
    mean_, rstd_ = array_at(mean, size, like), array_at(rstd, size, like)
    center, spread = array_at(running_mean, size, like), array_at(running_var, size, like)
    for j in range(size):
        center[j] = _moved(center[j], mean_[j], momentum)
        spread[j] = _grown(_product(spread[j], kept), _variance(rstd_[j], eps), weight)
