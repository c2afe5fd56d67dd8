"""Adam for stacks: what it needs to know of each step, and the step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from poise.kernels.adam import adam
from poise.recipe import AdamW


def adam_factors(
    steps: NDArray[Any], lr: NDArray[np.float64], config: AdamW
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """lr / (1 - β1^t) and sqrt(1 - β2^t) of steps t, counted from 1."""
    return lr / (1 - config.beta1**steps), np.sqrt(1 - config.beta2**steps)


def adam_step(tensors: Mapping[str, Any], grad: Tensor, reals: Mapping[str, Tensor], config: AdamW) -> None:
    """One step of a stack in place: its vectors among `tensors`, both of `adam_factors` among `reals`."""
    adam(
        tensors["weights"], grad, tensors["exp_avg"], tensors["exp_avg_sq"], reals["rate"], reals["root"],
        tensors.get("lr_factor"), config.beta1, config.beta2, config.eps,
    )  # fmt: skip
