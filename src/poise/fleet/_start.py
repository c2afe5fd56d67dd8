"""Where every training begins, whichever engine goes on with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from poise.data import Encoder
from poise.fleet._encoded import fit_encoders, target_scaling
from poise.fleet._memory import check_room
from poise.fleet._one_thread import one_thread
from poise.nn import TabularNetwork
from poise.train import (
    Dataset,
    Plan,
    State,
    build_network,
    flatten_,
    initialize_from_rows,
    running_statistics,
)

_MOST_ROWS = 4096  # that the first weights are fitted to


def start_states(plans: Sequence[Plan], data: Dataset, *, check: Callable[..., None] | None = None) -> list[State]:
    """Fresh states: encoders fitted on each plan's training rows, initial weights from its seed.

    Args:
        plans: What is to be trained.
        data: On what.
        check: Called after each start as `check_fits` is.

    Raises:
        TrainingError: If the training of a plan does not fit into memory.
    """
    states: list[State] = []
    for plan, encoder in zip(plans, fit_encoders(list(plans), data), strict=True):
        check_room(plan, encoder)
        states.append(_start(plan, data, encoder))
        if check is not None:
            check(states[-1], started=len(states), waiting=len(plans) - len(states))
    return states


def _start(plan: Plan, data: Dataset, encoder: Encoder) -> State:
    tensors, plain = encoder.to_state()
    mean, scale = target_scaling(plan, data)
    state = State({f"encoder.{name}": tensor for name, tensor in tensors.items()}, plain, mean, scale)
    network = _network(plan, data, encoder)
    weights = flatten_(list(network.parameters()), plan.dtype)
    statistics = flatten_(running_statistics(network), plan.dtype)
    zeros = torch.zeros_like(weights)
    state.tensors |= {"weights": weights, "exp_avg": zeros, "exp_avg_sq": zeros.clone(), "average": weights.clone()}
    state.tensors |= {"statistics": statistics, "served": weights.clone(), "served_statistics": statistics.clone()}
    return state


def _network(plan: Plan, data: Dataset, encoder: Encoder) -> nn.Module:
    """With its first weights."""
    fitted = plan.recipe.network.init == "data"
    dtype = torch.float64 if fitted else plan.dtype
    network = build_network(plan.recipe, encoder, plan.task, key=plan.key, dtype=dtype).network
    if fitted and isinstance(network, TabularNetwork):
        key = plan.key.stream("init", "data")
        counting = plan.train_rows[data.weight[plan.train_rows] > 0]
        rows = counting if len(counting) else plan.train_rows
        most = max(1, _MOST_ROWS // plan.recipe.network.num_members)
        chosen = rows[np.sort(key.permutation(len(rows))[:most].numpy())]
        with one_thread():
            initialize_from_rows(network, encoder.transform(data.table[chosen], dtype=dtype), key)
    return network
