"""How much memory is left, asked before it is taken."""

from __future__ import annotations

from pathlib import Path

import torch

from poise._errors import TrainingError
from poise.data import Encoder
from poise.train import Plan, State, network_shape

_RESERVE = 0.1
_VECTORS = 10  # as long as the weights: seven of the state, the gradient, and what the first weights are made from
_SMALL = 1 << 28  # bytes for which nobody is asked


def available_bytes() -> int | None:
    """Bytes that this process may still take; None where the system does not say."""
    limits = [_free_of_machine(), _free_of_group()]
    known = [limit for limit in limits if limit is not None]
    return min(known, default=None)


def check_room(plan: Plan, encoder: Encoder) -> None:
    """Refuse a plan whose training alone will not fit, before any of it is allocated.

    Raises:
        TrainingError: That names how many columns would fit.
    """
    size = torch.empty(0, dtype=plan.dtype).element_size()
    needed = network_shape(plan.recipe, encoder).in_features * plan.recipe.network.width * size * _VECTORS
    free = available_bytes() if needed > _SMALL else None
    if free is None or needed <= free * (1 - _RESERVE):
        return
    num_columns = len(encoder.schema.features)
    fitting = int(num_columns * free * (1 - _RESERVE) / needed)
    raise TrainingError(
        f"A network of width {plan.recipe.network.width} for {num_columns:,} columns needs about "
        f"{needed / 2**30:.3g} GiB to train, but {free / 2**30:.3g} GiB are free.",
        where=f"plan {plan.name!r}",
        repair=f"Choose at most {fitting:,} columns, give the recipe a smaller `width` or fewer `num_bins`, or let "
        "recipe='auto' find what fits.",
    )


def check_fits(state: State, *, started: int, waiting: int) -> None:
    """Refuse to go on when `waiting` more plans like the one just started will not fit.

    Raises:
        TrainingError: That names how many plans would fit.
    """
    free = available_bytes()
    if free is None or waiting == 0:
        return
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.tensors.values())
    fitting = int(free * (1 - _RESERVE)) // max(1, size)
    if fitting < waiting:
        raise TrainingError(
            f"{started + waiting} plans of {size / 2**20:.3g} MiB each do not fit into memory; {started + fitting} do.",
            repair=f"Train at most {started + fitting} plans at a time, or narrower networks.",
        )


def _free_of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _free_of_group() -> int | None:
    """Of the container's limit, where there is one."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = ((folder / name).read_text(encoding="ascii") for name in ("memory.max", "memory.current"))
        return int(limit) - int(used)
    except (OSError, ValueError):
        return None
