"""The plain engine: one plan at a time with ordinary autograd. It is the truth that faster engines are held against."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from poise.data import Inputs
from poise.fleet._encoded import Part, encoded
from poise.fleet._engine import Engine, OnEpoch, goes_on
from poise.fleet._one_thread import one_thread
from poise.fleet._record import Scores, record_epoch
from poise.functional.schedule import value_at
from poise.methods import AverageMethod, Batch, BatchMethod, Clock, Forward, LossMethod, UpdateMethod
from poise.nn import set_step
from poise.recipe import Network
from poise.surgery import recalibrate_outputs, weights_of
from poise.train import (
    Dataset,
    Plan,
    State,
    adam_step,
    batch_bounds,
    build_network,
    flatten_,
    flatten_gradients_,
    rows_of_members,
    running_statistics,
)

_MAX_CELLS = 1 << 26  # rows times width that are scored in one pass: a quarter of a GiB of float32 an activation


class PlainEngine(Engine):
    """One plan at a time, on one thread, so that a plan gives the same bits on every number of cores."""

    name = "plain"

    def why_not(self, plan: Plan) -> str:
        return ""

    def advance(
        self, plans: Sequence[Plan], states: Sequence[State], data: Dataset, *, until_epochs: Sequence[int],
        on_epoch: OnEpoch,
    ) -> None:  # fmt: skip
        for index, (plan, state, until_epoch) in enumerate(zip(plans, states, until_epochs, strict=True)):
            with one_thread():
                _advance(plan, state, data, until_epoch, partial(on_epoch, index))


def _advance(plan: Plan, state: State, data: Dataset, until_epoch: int, on_epoch: Callable[[State], bool]) -> None:
    if not goes_on(state, until_epoch):
        return
    training = _Training(plan, state, data)
    while goes_on(state, until_epoch):
        training.run_epoch()
        if not on_epoch(state) and not state.stopped:
            state.stopped = "time"


class _Training:
    """A training in progress: the live network and its data, laid over a State's tensors."""

    def __init__(self, plan: Plan, state: State, data: Dataset) -> None:
        self.plan, self.state, self.recipe = plan, state, plan.recipe
        self.rows = encoded(plan, state, data)
        self.train, self.val = self.rows.train, self.rows.val
        self.built = build_network(plan.recipe, self.rows.encoder, plan.task, key=plan.key, dtype=plan.dtype)
        self.network = self.built.network
        self.roles = weights_of(self.network)
        parameters = list(self.network.parameters())
        self.weights = flatten_(parameters, plan.dtype)
        self.grad = flatten_gradients_(parameters)
        self.statistics = flatten_(running_statistics(self.network), plan.dtype)
        self.lr_factor = self._lr_factor()
        self.bounds = batch_bounds(len(plan.train_rows), plan.recipe.budget.batch_size)
        self.num_steps = len(self.bounds) * plan.max_epochs
        self._restore()

    def _lr_factor(self) -> Tensor | float:
        factor = self.recipe.optimizer.bias_lr
        if factor == 1:
            return 1.0
        sizes = [(one.tensor.numel(), factor if one.role == "bias" else 1.0) for one in self.roles.values()]
        return torch.cat([torch.full((size,), one, dtype=self.plan.dtype) for size, one in sizes])

    def _restore(self) -> None:
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
        outputs, targets, weight = rows_of_members(self.network(batch.inputs), batch.targets, batch.weight)
        loss = (task.row_losses(outputs, targets) * weight).mean()
        for method in self.recipe.of(LossMethod):
            forward = Forward(outputs, targets, weight, task.row_losses, task.neutral, self.roles)
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
            scores = Scores(
                train_loss,
                val_loss,
                task.score(train_outputs, self.train.targets, self.train.weight),
                task.score(val_outputs, self.val.targets, self.val.weight),
            )
            if record_epoch(self.plan, state, scores, lr=lr, seconds=time.perf_counter() - started):
                state.tensors["served"].copy_(self.weights)
                state.tensors["served_statistics"].copy_(self.statistics)

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
        train, val = (_chunks(part.inputs, self.recipe.network) for part in (self.train, self.val))
        train_outputs = recalibrate_outputs(self.network, train)
        self.network.eval()
        if train_outputs is None:
            train_outputs = torch.cat([self.network(chunk) for chunk in train])
        return train_outputs, torch.cat([self.network(chunk) for chunk in val])

    def _mean_loss(self, outputs: Tensor, part: Part) -> float:
        return float((self.plan.task.row_losses(outputs, part.targets) * part.weight).mean())


def _chunks(inputs: Inputs, network: Network) -> list[Inputs]:
    size = max(1, _MAX_CELLS // (network.width * network.num_members))
    return [Inputs(*(part[at : at + size] for part in inputs)) for at in range(0, max(1, inputs.num_rows), size)]
