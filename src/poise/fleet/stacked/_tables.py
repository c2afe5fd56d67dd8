"""What changes from step to step, as tables with a row for each step of an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poise.fleet.stacked._adam import adam_factors
from poise.fleet.stacked._member import Member

ROWS = ("order", "reals", "doses", "steps")
"""The tables with a row for each step."""


def step_tables(members: Sequence[Member], passes: Sequence[int]) -> dict[str, NDArray[Any]]:
    """The coming epoch of members that have begun it.

    Args:
        members: One for each place.
        passes: Of an input through each layer that draws.

    Returns:
        order: (steps, V, B) of rows; behind the rows of a short batch, anything.
        reals: (steps, K, V) in the order of `names_of`.
        doses: (steps, L, V), strengths of the layers that draw.
        steps: (steps, passes of all layers, V), of their keys.
        seeds: (L, V), of their keys.
    """
    first, number = members[0], np.arange(len(members[0].bounds))
    orders = np.stack([member.order().numpy() for member in members])
    order = np.zeros((len(number), len(members), max(end - start for start, end in first.bounds)), np.int64)
    for batch, (at, end) in zip(order, first.bounds, strict=True):
        batch[:, : end - at] = orders[:, at:end]
    doses = np.stack([member.doses.T for member in members], axis=2)
    start = np.array([member.state.step for member in members]) + number[:, None]
    steps = [start + later * (doses[:, layer] > 0) for layer, most in enumerate(passes) for later in range(most)]
    seeds = [[0 if layer.key is None else layer.key.seed for layer in member.layers] for member in members]
    return {
        "order": order,
        "reals": np.stack([np.stack(_reals(member, num_averages(members)), axis=1) for member in members], axis=2),
        "doses": doses,
        "steps": np.stack(steps, axis=1) if steps else np.zeros((len(number), 0, len(members)), np.int64),
        "seeds": np.array(seeds, dtype=np.uint64).T.view(np.int64),
    }


def names_of(members: Sequence[Member]) -> list[str]:
    """What the reals of a step are: learning rate, both factors of Adam, strengths, and rates of averages."""
    return ["lr", "rate", "root", *members[0].strengths, *(f"average {one}" for one in range(num_averages(members)))]


def num_averages(members: Sequence[Member]) -> int:
    """Of the member that has most; those of the others have the rate 0, which leaves an average as it is."""
    return max(len(member.averages) for member in members)


def _reals(member: Member, averages: int) -> list[NDArray[np.float64]]:
    steps = member.state.step + 1 + np.arange(len(member.lr))
    factors = adam_factors(steps, member.lr, member.plan.recipe.optimizer)
    rates = np.zeros((averages, len(member.lr)))
    rates[: member.rates.shape[1]] = member.rates.T
    return [member.lr, *factors, *member.strengths.values(), *rates]
