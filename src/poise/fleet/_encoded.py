"""A plan's rows as tensors, shared by the plans that see the same ones."""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from dataclasses import dataclass
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from torch import Tensor

from poise.data import Encoder, Inputs
from poise.methods import Batch
from poise.train import Dataset, Plan, Rows, State


@dataclass(frozen=True, eq=False)
class Part:
    """The encoded training or validation rows of a plan.

    Args:
        inputs: What the network reads.
        targets: (N, num_outputs) float.
        weight: (N,) float, mean 1.
    """

    inputs: Inputs
    targets: Tensor
    weight: Tensor

    def take(self, rows: Tensor) -> Batch:
        """The rows `rows` (int64 indices) as a batch."""
        return Batch(self.inputs.take(rows), self.targets[rows], self.weight[rows])


@dataclass(frozen=True, eq=False)
class Encoded:
    """All that a plan sees of the table."""

    encoder: Encoder
    train: Part
    val: Part

    @property
    def num_bytes(self) -> int:
        """Of all tensors."""
        parts = [tensor for one in (self.train, self.val) for tensor in (*one.inputs, one.targets, one.weight)]
        return sum(tensor.nbytes for tensor in parts)


def fit_encoders(plans: list[Plan], data: Dataset) -> list[Encoder]:
    """The encoder of each plan, fitted on its training rows; plans that agree share one."""
    known, found = _FITTED.setdefault(data.like or data, OrderedDict()), []
    for plan in plans:
        network, name = plan.recipe.network, _name(plan)
        if name not in known:
            known[name] = Encoder.fit(
                data.table, data.schema, plan.train_rows, numeric=network.numeric, num_bins=network.num_bins
            )
        known.move_to_end(name)
        found.append(known[name])
    while len(known) > _MOST_ENCODERS:
        known.popitem(last=False)
    return found


_MOST_ENCODERS = 32  # the latest: plans of a search see the same rows again and again
_FITTED: WeakKeyDictionary[Dataset, OrderedDict[bytes, Encoder]] = WeakKeyDictionary()


def target_scaling(plan: Plan, data: Dataset) -> tuple[float, float]:
    """Mean and standard deviation of a numeric target over the training rows; 0 and 1 for classes."""
    if plan.task.kind != "regression":
        return 0.0, 1.0
    values, weight = data.target[plan.train_rows], data.weight[plan.train_rows]
    mean = float((values * weight).sum() / weight.sum())
    spread = math.sqrt(float(((values - mean) ** 2 * weight).sum() / weight.sum()))
    return mean, spread or 1.0


class _Shared:
    """The encoded rows of one table. They live as long as a training holds them; of those that none holds the latest
    are kept, up to a bound, since a fleet that goes on by rungs comes back to them.
    """

    def __init__(self) -> None:
        self.living: WeakValueDictionary[bytes, Encoded] = WeakValueDictionary()
        self.latest: OrderedDict[bytes, Encoded] = OrderedDict()

    def find(self, name: bytes) -> Encoded | None:
        found = self.living.get(name)
        if name in self.latest:
            self.latest.move_to_end(name)
        return found

    def keep(self, name: bytes, rows: Encoded) -> None:
        self.living[name] = self.latest[name] = rows
        while len(self.latest) > 1 and sum(one.num_bytes for one in self.latest.values()) > _MOST_BYTES:
            self.latest.popitem(last=False)


_MOST_BYTES = 1 << 29
_SHARED: WeakKeyDictionary[Dataset, _Shared] = WeakKeyDictionary()
_LOCK = threading.Lock()


def encoded(plan: Plan, state: State, data: Dataset) -> Encoded:
    """The rows of `plan`, encoded as `state` says, shared with plans that see the same rows in the same way."""
    name = _name(plan) + repr((plan.task, plan.dtype)).encode() + plan.val_rows.tobytes()
    with _LOCK:
        return _find(plan, state, data, name)


def _find(plan: Plan, state: State, data: Dataset, name: bytes) -> Encoded:
    shared = _SHARED.setdefault(data, _Shared())
    found = shared.find(name)
    if found is None:
        if data.like is None:
            encoder = Encoder.from_state(*state.encoder_state())
            sides = [encoder.transform(data.table[rows], dtype=plan.dtype) for rows in (plan.train_rows, plan.val_rows)]
        else:
            like = _find(plan, state, data.like, name)
            encoder, sides = like.encoder, [like.train.inputs, like.val.inputs]
        train, val = (
            _part(plan, state, data, rows, inputs)
            for rows, inputs in zip((plan.train_rows, plan.val_rows), sides, strict=True)
        )
        found = Encoded(encoder, train, val)
        shared.keep(name, found)
    return found


def _part(plan: Plan, state: State, data: Dataset, rows: Rows, inputs: Inputs) -> Part:
    values = (torch.from_numpy(data.target[rows]) - state.target_mean) / state.target_scale
    weight = torch.from_numpy(data.weight[rows])
    return Part(inputs, plan.task.targets(values.to(plan.dtype)), (weight / weight.mean()).to(plan.dtype))


def _name(plan: Plan) -> bytes:
    network = plan.recipe.network
    return hashlib.sha256(plan.train_rows.tobytes()).digest() + repr((network.numeric, network.num_bins)).encode()
