"""The plain engine: one plan at a time with ordinary autograd. It is the truth that faster engines are held against."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from poise.data import Encoder, Inputs
from poise.fleet._engine import Engine, OnEpoch
from poise.functional.schedule import value_at
from poise.methods import AverageMethod, Batch, BatchMethod, Clock, Forward, LossMethod, StopMethod, UpdateMethod
from poise.nn import set_step
from poise.surgery import recalibrate, weights_of
from poise.train import (
    Dataset,
    Epoch,
    Plan,
    Rows,
    State,
    adam_step,
    batch_bounds,
    build_network,
    flatten_,
    flatten_gradients_,
    running_statistics,
)

_MAX_CELLS = 1 << 26  # rows times width that are scored in one pass: a quarter of a GiB of float32 an activation


class PlainEngine(Engine):
    """One plan at a time, on one thread, so that a plan gives the same bits on every number of cores."""

    def start(self, plans: Sequence[Plan], data: Dataset) -> list[State]:
        return [_start(plan, data) for plan in plans]

    def advance(
        self, plans: Sequence[Plan], states: Sequence[State], data: Dataset, *, until_epoch: int, on_epoch: OnEpoch
    ) -> None:
        for index, (plan, state) in enumerate(zip(plans, states, strict=True)):
            with _one_thread():
                _advance(plan, state, data, until_epoch, partial(on_epoch, index))


def _start(plan: Plan, data: Dataset) -> State:
    network = plan.recipe.network
    encoder = Encoder.fit(data.table, data.schema, plan.train_rows, numeric=network.numeric, num_bins=network.num_bins)
    tensors, plain = encoder.to_state()
    state = State({f"encoder.{name}": tensor for name, tensor in tensors.items()}, plain)
    if plan.task.kind == "regression":
        _fit_target(state, plan, data)
    training = _Training(plan, state, data, encoder)
    training.store_fresh()
    return state


def _fit_target(state: State, plan: Plan, data: Dataset) -> None:
    values, weight = data.target[plan.train_rows], data.weight[plan.train_rows]
    state.target_mean = float((values * weight).sum() / weight.sum())
    spread = math.sqrt(float(((values - state.target_mean) ** 2 * weight).sum() / weight.sum()))
    state.target_scale = spread or 1.0


def _advance(plan: Plan, state: State, data: Dataset, until_epoch: int, on_epoch: Callable[[State], bool]) -> None:
    if state.stopped or state.epoch >= until_epoch:
        return
    training = _Training(plan, state, data, Encoder.from_state(*state.encoder_state()))
    training.restore()
    while not state.stopped and state.epoch < until_epoch:
        training.run_epoch()
        if not on_epoch(state) and not state.stopped:
            state.stopped = "time"


class _Part:
    """The encoded rows of one part of the data."""

    def __init__(self, plan: Plan, state: State, data: Dataset, encoder: Encoder, rows: Rows) -> None:
        self.inputs = encoder.transform(data.table[rows], dtype=plan.dtype)
        values = (torch.from_numpy(data.target[rows]) - state.target_mean) / state.target_scale
        self.targets = plan.task.targets(values.to(plan.dtype))
        weight = torch.from_numpy(data.weight[rows])
        self.weight = (weight / weight.mean()).to(plan.dtype)

    def take(self, rows: Tensor) -> Batch:
        return Batch(self.inputs.take(rows), self.targets[rows], self.weight[rows])


class _Training:
    """A training in progress: the live network and its data, laid over a State's tensors."""

    def __init__(self, plan: Plan, state: State, data: Dataset, encoder: Encoder) -> None:
        self.plan, self.state, self.recipe = plan, state, plan.recipe
        self.train = _Part(plan, state, data, encoder, plan.train_rows)
        self.val = _Part(plan, state, data, encoder, plan.val_rows)
        self.built = build_network(plan.recipe, encoder, plan.task, key=plan.key, dtype=plan.dtype)
        self.network = self.built.network
        self.roles = weights_of(self.network)
        parameters = list(self.network.parameters())
        self.weights = flatten_(parameters, plan.dtype)
        self.grad = flatten_gradients_(parameters)
        self.statistics = flatten_(running_statistics(self.network), plan.dtype)
        self.lr_factor = self._lr_factor()
        self.bounds = batch_bounds(len(plan.train_rows), plan.recipe.budget.batch_size)
        self.num_steps = len(self.bounds) * plan.max_epochs

    def _lr_factor(self) -> Tensor | float:
        factor = self.recipe.optimizer.bias_lr
        if factor == 1:
            return 1.0
        return torch.cat(
            [torch.full((one.tensor.numel(),), factor if one.role == "bias" else 1.0) for one in self.roles.values()]
        ).to(self.plan.dtype)

    def store_fresh(self) -> None:
        zeros = torch.zeros_like(self.weights)
        self.state.tensors |= {"exp_avg": zeros, "exp_avg_sq": zeros.clone(), "average": self.weights.clone()}
        self.state.tensors |= {"weights": self.weights, "statistics": self.statistics}
        self.state.tensors |= {"served": self.weights.clone(), "served_statistics": self.statistics.clone()}

    def restore(self) -> None:
        self.weights.copy_(self.state.tensors["weights"])
        self.statistics.copy_(self.state.tensors["statistics"])
        self.state.tensors |= {"weights": self.weights, "statistics": self.statistics}

    # One epoch

    def run_epoch(self) -> None:
        started = time.perf_counter()
        self.network.train()
        order = self.plan.key.stream("order").at(self.state.epoch).permutation(len(self.plan.train_rows))
        lr = 0.0
        for start, end in self.bounds:
            lr = self._step(self.train.take(order[start:end]))
        self._score(lr, started)

    def _step(self, batch: Batch) -> float:
        clock = self._clock()
        progress = clock.progress
        self.built.set_progress(progress)
        set_step(self.network, clock.step)
        for method in self.recipe.of(BatchMethod):
            key = self.plan.key.stream("batch", type(method).__name__).at(clock.step)
            batch = method.at(progress).transform(batch, key)
        self.grad.zero_()
        torch.autograd.backward(self._loss(batch, progress))
        lr = value_at(self.recipe.optimizer.lr, progress)
        self._update(progress, lr)
        self.state.step += 1
        self._average()
        return lr

    def _loss(self, batch: Batch, progress: float) -> Tensor:
        task = self.plan.task
        outputs = self.network(batch.inputs)
        loss = (task.row_losses(outputs, batch.targets) * batch.weight).mean()
        for method in self.recipe.of(LossMethod):
            forward = Forward(outputs, batch.targets, batch.weight, task.row_losses, task.neutral, self.roles)
            loss = loss + method.at(progress).penalty(forward)
        return loss

    def _update(self, progress: float, lr: float) -> None:
        methods = [method.at(progress) for method in self.recipe.of(UpdateMethod)]
        for method in methods:
            if method.moment == "before":
                method.update(self.roles, lr)
        tensors, config = self.state.tensors, self.recipe.optimizer
        adam_step(
            self.weights, self.grad, tensors["exp_avg"], tensors["exp_avg_sq"],
            step=self.state.step + 1, lr=lr * self.lr_factor, config=config,
        )  # fmt: skip
        for method in methods:
            if method.moment == "after":
                method.update(self.roles, lr)

    def _average(self) -> None:
        clock = self._clock()
        for method in self.recipe.of(AverageMethod):
            rate = method.at(clock.progress).rate(clock)
            if rate:
                self.state.averaging = True
                self.state.tensors["average"].lerp_(self.weights, rate)

    def _clock(self) -> Clock:
        return Clock(self.state.step, len(self.bounds), self.num_steps)

    # Scores, in eval mode with exact population statistics

    def _score(self, lr: float, started: float) -> None:
        state, task = self.state, self.plan.task
        with self._weights_that_predict():
            train_outputs, val_outputs = self._outputs()
            train_loss, val_loss = self._mean_loss(train_outputs, self.train), self._mean_loss(val_outputs, self.val)
            if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
                state.stopped = "non-finite"
                return
            spent = state.history[-1].seconds if state.history else 0.0
            record = Epoch(
                epoch=state.epoch + 1,
                lr=lr,
                train_loss=train_loss,
                val_loss=val_loss,
                train_score=task.score(train_outputs, self.train.targets, self.train.weight),
                val_score=task.score(val_outputs, self.val.targets, self.val.weight),
                seconds=spent + time.perf_counter() - started,
            )
            state.history.append(record)
            self._serve()
        self._stop()

    @contextmanager
    def _weights_that_predict(self) -> Iterator[None]:
        """The average, if there is one, in place of the weights that train."""
        if not self.state.averaging:
            yield
            return
        training = self.weights.clone()
        self.weights.copy_(self.state.tensors["average"])
        try:
            yield
        finally:
            self.weights.copy_(training)

    @torch.no_grad()
    def _outputs(self) -> tuple[Tensor, Tensor]:
        train, val = (_chunks(part.inputs, self.recipe.network.width) for part in (self.train, self.val))
        train_outputs = recalibrate(self.network, train)
        self.network.eval()
        if train_outputs is None:
            train_outputs = torch.cat([self.network(chunk) for chunk in train])
        return train_outputs, torch.cat([self.network(chunk) for chunk in val])

    def _mean_loss(self, outputs: Tensor, part: _Part) -> float:
        return float((self.plan.task.row_losses(outputs, part.targets) * part.weight).mean())

    def _serve(self) -> None:
        """Keep these weights for prediction: the best epoch's if the recipe stops early, else the latest."""
        history = self.state.history
        is_best = history[-1].val_loss < self.state.val_loss
        if is_best or not self.recipe.of(StopMethod):
            self.state.best_epoch = self.state.epoch
            self.state.tensors["served"].copy_(self.weights)
            self.state.tensors["served_statistics"].copy_(self.statistics)

    def _stop(self) -> None:
        val_losses = [record.val_loss for record in self.state.history]
        if any(method.should_stop(val_losses) for method in self.recipe.of(StopMethod)):
            self.state.stopped = "early"
        if self.state.epoch >= self.plan.max_epochs:
            self.state.stopped = "budget"


def _chunks(inputs: Inputs, width: int) -> list[Inputs]:
    size = max(1, _MAX_CELLS // width)
    return [Inputs(*(part[at : at + size] for part in inputs)) for at in range(0, max(1, inputs.num_rows), size)]


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
