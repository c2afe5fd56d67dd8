"""What Adam needs to know of each step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from poise.recipe import AdamW


def adam_factors(
    steps: NDArray[Any], lr: NDArray[np.float64], config: AdamW
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """lr / (1 - β1^t) and sqrt(1 - β2^t) of steps t, counted from 1."""
    return lr / (1 - config.beta1**steps), np.sqrt(1 - config.beta2**steps)
