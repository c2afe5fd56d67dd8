"""One of the trainings in a stack: its data, its network, and the numbers that change from step to step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from poise.data import Encoder
from poise.fleet._encoded import Encoded, Part, encoded
from poise.fleet._record import Scores, record_epoch
from poise.fleet.stacked._noise import drawn_layers
from poise.functional.schedule import Schedule, Strength, value_at
from poise.methods import AverageMethod, Batch, BatchMethod, Clock, LossMethod, Method, UpdateMethod
from poise.train import (
    BuiltNetwork,
    Dataset,
    Plan,
    State,
    Task,
    batch_bounds,
    build_network,
    flatten_,
    running_statistics,
)

Values = NDArray[np.float64]
M = TypeVar("M", bound=Method)


class Member:
    """A plan that takes part in a stack.

    Args:
        index: Of the plan among those that the engine was given.
        plan: What to train.
        state: Where it stands.
        data: The table.
    """

    def __init__(self, index: int, plan: Plan, state: State, data: Dataset) -> None:
        self.index, self.plan, self.state = index, plan, state
        self.rows: Encoded = encoded(plan, state, data)
        self.built = built_for(plan, self.rows.encoder)
        self.bounds = batch_bounds(len(plan.train_rows), plan.recipe.budget.batch_size)
        self.num_steps = len(self.bounds) * plan.max_epochs
        with torch.no_grad():
            flatten_(list(self.network.parameters()), plan.dtype).copy_(state.tensors["weights"])
            flatten_(running_statistics(self.network), plan.dtype).copy_(state.tensors["statistics"])
        self.batch_methods = plan.recipe.of(BatchMethod)
        self.averages = plan.recipe.of(AverageMethod)
        self.strengths: dict[str, Values] = {}
        self.lr: Values = np.zeros(0)
        self.rates: Values = np.zeros((0, 0))
        self.layers = drawn_layers(self.network)
        self.doses: Values = np.zeros((0, 0))

    @property
    def network(self) -> nn.Module:
        """Its network, as the epoch before left it; the weights that train lie in the stack."""
        return self.built.network

    def begin_epoch(self) -> None:
        """Compute the numbers of every step of the coming epoch."""
        steps = range(self.state.step, self.state.step + len(self.bounds))
        progress = [step / self.num_steps for step in steps]
        recipe = self.plan.recipe
        self.lr = _values_at(recipe.optimizer.lr, progress)
        acting = (*recipe.of(LossMethod), *recipe.of(UpdateMethod), *self.batch_methods)
        self.strengths = {
            f"{type(method).__name__}.{name}": values
            for method in acting
            for name, values in strengths_of(method, progress).items()
        }
        self.doses = self._doses(progress)
        clocks = [Clock(step + 1, len(self.bounds), self.num_steps) for step in steps] if self.averages else []
        rates = [[method.at(clock.progress).rate(clock) for method in self.averages] for clock in clocks]
        self.rates = np.array(rates, dtype=np.float64).reshape(len(steps), len(self.averages))

    def order(self) -> Tensor:
        """The order of its rows in this epoch."""
        return self.plan.key.stream("order").at(self.state.epoch).permutation(len(self.plan.train_rows))

    def _doses(self, progress: list[float]) -> Values:
        """The strength of each layer that draws at each of `progress`: (layers, steps)."""
        moving: dict[nn.Module, Values] = {}
        for method, site, layer in self.built.scheduled:
            # A layer has a single setting, its strength.
            for values in method.with_strengths(strengths_of(method, progress)).settings(site).values():
                moving[layer] = np.asarray(values, dtype=np.float64)
        rows = [np.broadcast_to(moving.get(layer, np.array(layer.strength)), len(progress)) for layer in self.layers]
        return np.array(rows, dtype=np.float64).reshape(len(self.layers), len(progress))

    def change(self, batch: Batch, number: int) -> Batch:
        """A batch as its methods want it at a step of the epoch."""
        step = self.state.step + number
        for method in self.batch_methods:
            name = type(method).__name__
            own = {one: float(self.strengths[f"{name}.{one}"][number]) for one in strength_names(method)}
            batch = method.with_strengths(own).transform(batch, self.plan.key.stream("batch", name).at(step))
        return batch

    def has_average(self) -> bool:
        """Whether an average of the weights predicts after this epoch."""
        return self.state.averaging or bool(self.rates.any())

    def end_epoch(
        self, tensors: dict[str, Tensor], serving: Tensor, train: Tensor, val: Tensor, *, seconds: float
    ) -> None:
        """Write an epoch down in the state.

        Args:
            tensors: Vectors of the state, which are copied.
            serving: The weights that predict.
            train: Outputs for the training rows.
            val: Outputs for the validation rows.
            seconds: That the epoch took.
        """
        plan, rows = self.plan, self.rows
        (train_loss, train_score), (val_loss, val_score) = (
            _scores(plan.task, outputs, part) for outputs, part in ((train, rows.train), (val, rows.val))
        )
        draft = replace(
            self.state,
            tensors=self.state.tensors | {name: tensor.clone() for name, tensor in tensors.items()},
            history=list(self.state.history),
            step=self.state.step + len(self.bounds),
            averaging=self.has_average(),
        )
        scores = Scores(train_loss, val_loss, train_score, val_score)
        if record_epoch(plan, draft, scores, lr=float(self.lr[-1]), seconds=seconds):
            draft.tensors |= {"served": serving.clone(), "served_statistics": tensors["statistics"].clone()}
        # A single call, so that an interrupt finds the state before this epoch or after it.
        vars(self.state).update(vars(draft))


def _scores(task: Task, outputs: Tensor, part: Part) -> tuple[float, float]:
    loss = float((task.row_losses(outputs, part.targets) * part.weight).mean())
    return loss, task.score(outputs, part.targets, part.weight)


def built_for(plan: Plan, encoder: Encoder) -> BuiltNetwork:
    """The network that `plan` trains."""
    return build_network(plan.recipe, encoder, plan.task, key=plan.key, dtype=plan.dtype)


def strength_names(method: Method) -> list[str]:
    """The fields of `method` that may differ between variants."""
    return [one.name for one in fields(method) if one.metadata.get("strength")]


def strengths_of(method: Method, progress: list[float]) -> dict[str, Values]:
    """The strengths of `method` at each of `progress`, by field."""
    return {name: _values_at(getattr(method, name), progress) for name in strength_names(method)}


def strengthened(method: M, strengths: Mapping[str, Any]) -> M:
    """`method` with its strengths out of those of all methods, by class and field."""
    name = type(method).__name__
    return method.with_strengths({one: strengths[f"{name}.{one}"] for one in strength_names(method)})


def _values_at(strength: Strength, progress: list[float]) -> Values:
    if not isinstance(strength, Schedule):
        return np.full(len(progress), strength, dtype=np.float64)
    return np.array([value_at(strength, one) for one in progress])
