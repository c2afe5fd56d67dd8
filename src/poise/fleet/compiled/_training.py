"""One training of the compiled engine: a State's tensors as arrays, and what machine code needs beside them."""

from __future__ import annotations

import time
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from poise.data import Encoder
from poise.fleet._encoded import Part, encoded
from poise.fleet._record import Scores, record_epoch
from poise.fleet.compiled._epoch import score, train_epoch
from poise.fleet.compiled._lower import Lowered, lower
from poise.fleet.compiled._program import LEARNING_RATE, Buffers, Rows, Weights
from poise.methods import AverageMethod, Clock
from poise.train import Dataset, Plan, State, batch_bounds, build_network


class Memory:
    """Buffers of one core, made larger when a training needs more."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, Any], NDArray[Any]] = {}

    def buffers(self, lowered: Lowered, dtype: Any, num_rows: int, *, bfloat16: bool) -> Buffers:
        """Buffers for a training whose scores are of up to `num_rows` rows."""
        sizes = lowered.buffer_sizes
        cells, rows = sizes["cells"], sizes["capacity"]
        plain = ("values", "grads", "masks", "moments", "transposed", "scratch", "rows", "shares", "stem")
        return Buffers(
            **{name: self._array(name, sizes[name], dtype) for name in plain},
            left=self._array("left", sizes["pairs"] if bfloat16 else 1, np.uint32 if bfloat16 else dtype),
            right=self._array("right", sizes["pairs"] if bfloat16 else 1, np.uint32 if bfloat16 else dtype),
            bits=self._array("bits", sizes["bits"], np.uint32),
            store=self._array("store", num_rows * lowered.store_width, dtype),
            numeric=self._array("numeric", cells, dtype),
            categorical=self._array("categorical", cells, np.int64),
            other_numeric=self._array("other_numeric", cells, dtype),
            other_categorical=self._array("other_categorical", cells, np.int64),
            targets=self._array("targets", cells, dtype),
            other_targets=self._array("other_targets", cells, dtype),
            weight=self._array("weight", rows, dtype),
            other_weight=self._array("other_weight", rows, dtype),
            order=self._array("order", rows, np.int64),
            pieces=self._array("pieces", sizes["shares"], np.int64),
        )

    def _array(self, name: str, size: int, dtype: Any) -> NDArray[Any]:
        found = self._arrays.get((name, dtype))
        if found is None or found.size < size:
            found = self._arrays[name, dtype] = np.zeros(max(1, size), dtype)
        return found


class CompiledTraining:
    """A training in progress.

    Args:
        plan: What to train.
        state: Where it stands; its tensors change in place.
        data: The table.
        memory: Of the core that trains it.
        bfloat16: Whether matrix products take factors of half precision.
    """

    def __init__(self, plan: Plan, state: State, data: Dataset, memory: Memory, *, bfloat16: bool = False) -> None:
        self.plan, self.state = plan, state
        self.rows = encoded(plan, state, data)
        self.train, self.val = _rows(self.rows.train), _rows(self.rows.val)
        self.spreads = [_spread(plan, part) for part in (self.train, self.val)]
        bounds = batch_bounds(len(plan.train_rows), plan.recipe.budget.batch_size)
        self.bounds = np.array([start for start, _ in bounds] + [bounds[-1][1]], dtype=np.int64)
        self.num_steps = len(bounds) * plan.max_epochs
        self.lowered = _lowered(plan, self.rows.encoder, data, int(np.diff(self.bounds).max()))
        most = max(len(plan.train_rows), len(plan.val_rows))
        self.buffers = memory.buffers(self.lowered, self.train.numeric.dtype, most, bfloat16=bfloat16)
        self.order_key = plan.key.stream("order")
        self.methods = plan.recipe.of(AverageMethod)
        arrays = {name: tensor.numpy() for name, tensor in state.tensors.items() if not name.startswith("encoder.")}
        self.served, self.served_statistics = arrays.pop("served"), arrays.pop("served_statistics")
        self.weights = Weights(grad=np.zeros_like(arrays["weights"]), **arrays)

    def run_epoch(self) -> None:
        """Train one epoch, score it and write it down."""
        started = time.perf_counter()
        state, lowered = self.state, self.lowered
        steps = np.arange(state.step, state.step + len(self.bounds) - 1)
        strengths = lowered.strengths.at(steps, self.num_steps)
        rates = self._rates(steps)
        order = self.order_key.at(state.epoch).permutation(len(self.train.numeric)).numpy()
        train_epoch(
            lowered.program, self.train, self.weights, self.buffers, order, self.bounds, strengths, rates, state.step
        )
        state.step += len(steps)
        state.averaging = state.averaging or (rates.size > 0 and bool(rates.any()))
        weights = self.weights._replace(weights=self.weights.average) if state.averaging else self.weights
        scores = self._scores(weights, strengths[-1])
        lr = float(strengths[-1, LEARNING_RATE])
        if record_epoch(self.plan, state, scores, lr=lr, seconds=time.perf_counter() - started):
            self.served[:] = weights.weights
            self.served_statistics[:] = weights.statistics

    def _rates(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        rates = np.zeros((len(steps), len(self.methods)))
        if not self.methods:
            return rates
        for i, step in enumerate(steps):
            clock = Clock(int(step) + 1, len(steps), self.num_steps)
            for j, method in enumerate(self.methods):
                rates[i, j] = method.at(clock.progress).rate(clock)
        return rates

    def _scores(self, weights: Weights, strengths: NDArray[np.float64]) -> Scores:
        losses, scores = [], []
        for part, measure, spread in zip((self.train, self.val), (True, False), self.spreads, strict=True):
            sums = np.zeros(2)
            score(self.lowered.program, part, weights, self.buffers, strengths, measure, sums)
            loss, total = sums.tolist()
            losses.append(loss / len(part.weight))
            scores.append(_score(self.plan, total, spread))
        return Scores(*losses, *scores)


def _spread(plan: Plan, part: Rows) -> float:
    """Of the classes, the weight of all rows; of a numeric target, its sum of squared deviations from the mean."""
    weight = part.weight.astype(np.float64)
    if plan.task.kind != "regression":
        return float(weight.sum())
    values = part.targets[:, 0].astype(np.float64)
    mean = (values * weight).sum() / weight.sum()
    return float(((values - mean) ** 2 * weight).sum())


def _score(plan: Plan, total: float, spread: float) -> float:
    """Accuracy from the weight of the hits, or R² from the sum of squared residuals."""
    if plan.task.kind != "regression":
        return total / spread
    # A constant target is predicted perfectly or not at all; R² has no better meaning there.
    return 1 - total / spread if spread > 0 else float(total == 0)


def _lowered(plan: Plan, encoder: Encoder, data: Dataset, most_rows: int) -> Lowered:
    """The program of `plan`, which is kept for the next rung: making it takes as long as a short epoch."""
    kept = _LOWERED.setdefault(data, WeakKeyDictionary())
    found = kept.get(plan)
    if found is None:
        built = build_network(plan.recipe, encoder, plan.task, key=plan.key, dtype=plan.dtype)
        found = lower(plan, built, most_rows)
        if sum(array.nbytes for array in found.program) <= _MOST_KEPT:
            kept[plan] = found
    return found


_MOST_KEPT = 1 << 16  # bytes of a program; there may be thousands
_LOWERED: WeakKeyDictionary[Dataset, WeakKeyDictionary[Plan, Lowered]] = WeakKeyDictionary()


def _rows(part: Part) -> Rows:
    arrays = (part.inputs.numeric, part.inputs.categorical, part.targets, part.weight)
    return Rows(*(np.ascontiguousarray(one.numpy()) for one in arrays))
