"""From a recipe and its network to a `Program`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from poise.fleet.compiled import _program as codes
from poise.fleet.compiled._network import lower_network
from poise.fleet.compiled._program import NUM_SIZES, Program
from poise.fleet.compiled._stem import stem_size
from poise.fleet.compiled._strengths import StrengthTable
from poise.fleet.compiled._unsupported import Unsupported
from poise.fleet.compiled._waves import VECTORS
from poise.methods import (
    L1,
    L2,
    ROLES,
    BatchMethod,
    FeatureMask,
    GradientClip,
    GroupLasso,
    LabelSmoothing,
    LossMethod,
    MaxNorm,
    Method,
    Mixup,
    UpdateMethod,
    WeightDecay,
)
from poise.nn import TabularNetwork
from poise.surgery import weights_of
from poise.train import BuiltNetwork, Plan

_TASKS = {"binary": codes.BINARY, "multiclass": codes.MULTICLASS, "regression": codes.REGRESSION}
_TILE = 4096
_CHUNK = 256  # rows of a scoring pass, at least: enough for matrix products to be fast, few enough for the cache
_UPDATES: dict[type[Method], tuple[int, str]] = {
    WeightDecay: (codes.WEIGHT_DECAY, "weight_decay"),
    GradientClip: (codes.GRADIENT_CLIP, "max_norm"),
    L1: (codes.L1, "strength"),
    GroupLasso: (codes.GROUP_LASSO, "strength"),
    MaxNorm: (codes.MAX_NORM, "max_norm"),
}
_DTYPES = {torch.float32: np.float32, torch.float64: np.float64}


@dataclass(frozen=True, eq=False)
class Lowered:
    """A program, its strengths, and the sizes of the memory that it needs.

    Args:
        program: What machine code walks through.
        strengths: Of all steps.
        buffer_sizes: Numbers in each buffer, by name.
        store_width: Numbers that scoring keeps for each row.
    """

    program: Program
    strengths: StrengthTable
    buffer_sizes: dict[str, int]
    store_width: int


def lower(plan: Plan, built: BuiltNetwork, most_rows: int) -> Lowered:
    """The program of `plan`.

    Args:
        plan: What to train.
        built: Its network.
        most_rows: Of a batch.

    Raises:
        Unsupported: If a method, a layer or the dtype has no machine code.
    """
    if plan.dtype not in _DTYPES:
        raise Unsupported(f"dtype {plan.dtype}")
    network = built.network
    if type(network) is not TabularNetwork:
        raise Unsupported(f"network {type(network).__name__}")
    members = plan.recipe.network.num_members
    dtype, capacity = _DTYPES[plan.dtype], max(most_rows * members, _CHUNK)
    strengths, streams = StrengthTable(), [0]
    strengths.add(plan.recipe.optimizer.lr)
    _add_losses(plan, strengths)
    net = lower_network(built, strengths, streams, capacity)
    batch = _batch_methods(plan, strengths, streams)
    updates = _update_methods(plan, strengths)
    continuous, numeric = network.num_continuous, net.num_numeric
    start, slope, low, high = _bins(network, dtype)
    sizes = np.zeros(NUM_SIZES, dtype=np.int64)
    for index, size in (
        (codes.CAPACITY, capacity),
        (codes.NUM_CONTINUOUS, continuous),
        (codes.NUM_NUMERIC, numeric),
        (codes.NUM_CATEGORICAL, len(net.tables)),
        (codes.IN_WIDTH, net.in_width),
        (codes.IN_GRAD, net.in_grad),
        (codes.OUT_OFFSET, net.out_offset),
        (codes.NUM_OUTPUTS, plan.task.num_outputs),
        (codes.TASK, _TASKS[plan.task.kind]),
        (codes.MOMENTS_SIZE, net.moments_size),
        (codes.NUM_MEMBERS, members),
        (codes.NUM_PIECES, net.num_pieces),
    ):
        sizes[index] = size
    optimizer = plan.recipe.optimizer
    program = Program(
        ops=net.ops,
        constants=np.array(net.constants, dtype=np.float64),
        sizes=sizes,
        tables=_table(net.tables, 4),
        waves=_table(net.waves, codes.NUM_WAVES),
        params=_params(network),
        batch=_table(batch, 4),
        updates=_table(updates, 3),
        streams=np.array(streams, dtype=np.uint64),
        start=start,
        slope=slope,
        low=low,
        high=high,
        optimizer=np.array([optimizer.beta1, optimizer.beta2, optimizer.eps, optimizer.bias_lr]),
    )
    buffer_sizes = _buffer_sizes(program, net.total_width, net.widest, net.num_norms)
    return Lowered(program, strengths, buffer_sizes, net.store_width * members)


def _table(rows: list[tuple[int, ...]], width: int) -> NDArray[np.int64]:
    return np.array(rows, dtype=np.int64).reshape(-1, width)


def _add_losses(plan: Plan, strengths: StrengthTable) -> None:
    found: dict[type[Method], Any] = {LabelSmoothing: 0.0, L2: 0.0}
    for method in plan.recipe.of(LossMethod):
        if type(method) not in found:
            raise Unsupported(f"method {type(method).__name__}")
        if isinstance(method, LabelSmoothing):
            if plan.task.neutral is None:
                raise Unsupported("method LabelSmoothing with a numeric target")
            found[LabelSmoothing] = method.smoothing
        elif isinstance(method, L2):
            found[L2] = method.strength
    strengths.add(found[LabelSmoothing])
    strengths.add(found[L2])


def _batch_methods(plan: Plan, strengths: StrengthTable, streams: list[int]) -> list[tuple[int, ...]]:
    rows: list[tuple[int, ...]] = []
    for method in plan.recipe.of(BatchMethod):
        key = plan.key.stream("batch", type(method).__name__)
        if type(method) is Mixup:
            index, names, code = strengths.add_mixing(method.alpha, key.stream("lam")), ("partner", "cell"), codes.MIXUP
        elif type(method) is FeatureMask:
            index, names, code = strengths.add(method.p), ("numeric", "categorical"), codes.FEATURE_MASK
        else:
            raise Unsupported(f"method {type(method).__name__}")
        streams += [key.stream(name).seed for name in names]
        rows.append((code, index, len(streams) - 2, len(streams) - 1))
    return rows


def _update_methods(plan: Plan, strengths: StrengthTable) -> list[tuple[int, ...]]:
    rows: dict[str, list[tuple[int, ...]]] = {"before": [], "after": []}
    for method in plan.recipe.of(UpdateMethod):
        if type(method) not in _UPDATES:
            raise Unsupported(f"method {type(method).__name__}")
        code, name = _UPDATES[type(method)]
        roles = method.roles if isinstance(method, WeightDecay) else ()
        bits = sum(1 << ROLES.index(role) for role in ROLES if role in roles)
        rows[method.moment].append((code, strengths.add(getattr(method, name)), bits))
    return [*rows["before"], (codes.ADAM, codes.LEARNING_RATE, 0), *rows["after"]]


def _params(network: TabularNetwork) -> NDArray[np.int64]:
    rows: list[tuple[int, ...]] = []
    offset = 0
    for weight in weights_of(network).values():
        size, first = weight.tensor.numel(), weight.tensor.shape[0]
        rows.append((offset, first, size // max(1, first), ROLES.index(weight.role)))
        offset += size
    return _table(rows, 4)


def _bins(network: TabularNetwork, dtype: Any) -> list[NDArray[Any]]:
    layer = network.numbers
    if layer is None:
        return [np.zeros((0, 0), dtype) for _ in range(4)]
    found: list[torch.Tensor] = [layer.start, layer.slope, layer.low, layer.high]
    return [np.ascontiguousarray(one.numpy().astype(dtype)) for one in found]


def _buffer_sizes(program: Program, total_width: int, widest: int, num_norms: int) -> dict[str, int]:
    sizes = program.sizes
    capacity, kinds, numeric = (int(sizes[i]) for i in (codes.CAPACITY, codes.NUM_CATEGORICAL, codes.NUM_NUMERIC))
    largest = int((program.params[:, 1] * program.params[:, 2]).max())
    waves = VECTORS + int(program.waves[:, 2].max(initial=0))
    cells = capacity * max(1, numeric, kinds, int(sizes[codes.NUM_OUTPUTS]))
    return {
        "values": capacity * total_width,
        "grads": capacity * total_width,
        "masks": capacity * total_width,
        "moments": 2 * num_norms * int(sizes[codes.MOMENTS_SIZE]),
        "transposed": largest + widest,
        "rows": 4 * widest,
        "pairs": max(capacity, widest) * (widest + 2),
        "shares": capacity * int(sizes[codes.NUM_CONTINUOUS]),
        "stem": max((stem_size(op) for op in program.ops if op[codes.CODE] == codes.STEM), default=0),
        "scratch": max(_TILE, capacity * widest, 4 * widest, capacity * waves),
        "bits": 2 * capacity * max(widest, kinds, 1) + 8,
        "cells": cells,
        "capacity": capacity,
    }
