"""Trainings of one structure, step by step and side by side."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap

from poise.data import Inputs
from poise.fleet.stacked._adam import stacked_adam_step
from poise.fleet.stacked._member import Member, strength_names
from poise.fleet.stacked._noise import Draws
from poise.fleet.stacked._replay import Replays
from poise.fleet.stacked._rows import RowPool, stacked_inputs
from poise.fleet.stacked._stack import Stack
from poise.methods import Batch, Forward, LossMethod, Method, UpdateMethod, Weight
from poise.surgery import recalibrate_outputs, weights_of
from poise.train import rows_of_members, running_statistics

# Rows times width that are scored in one pass: of a variant as in the plain engine, and of as many as fit the cache.
_MAX_CELLS, _CACHED_CELLS = 1 << 26, 1 << 21
_VECTORS = ("exp_avg", "exp_avg_sq", "average")
M = TypeVar("M", bound=Method)
Strengths = Mapping[str, Tensor]


class StackedTraining:
    """Members that take the same steps, each with its own numbers.

    Args:
        members: One for each place; one that fills several places trains in each.
        device: Where they train.
    """

    def __init__(self, members: Sequence[Member], device: torch.device) -> None:
        self.members, self.device = list(members), device
        first = members[0]
        self.plan, self.recipe, self.bounds = first.plan, first.plan.recipe, first.bounds
        self.stack = Stack([member.network for member in members], device=device)
        if min(end - start for start, end in self.bounds) > 1:
            self.stack.fuse()
        self._cells = self.recipe.network.width * self.recipe.network.num_members
        self.replays = Replays()
        self.stack.replay(self.replays)
        self.vectors = {
            name: torch.stack([member.state.tensors[name] for member in members]).to(device) for name in _VECTORS
        }
        self.roles = {name: weight.role for name, weight in weights_of(self.stack.template).items()}
        self.statistics = [name for name, _ in _statistics_of(self.stack.template)]
        self.losses, self.updates = self.recipe.of(LossMethod), self.recipe.of(UpdateMethod)
        self.lr_factor = self._lr_factor()
        self._gather()

    def _lr_factor(self) -> Tensor | None:
        factor, dtype = self.recipe.optimizer.bias_lr, self.plan.dtype
        if factor == 1:
            return None
        shapes = self.stack.shapes
        parts = [
            torch.full((shapes[name].numel(),), factor if role == "bias" else 1.0) for name, role in self.roles.items()
        ]
        return torch.cat(parts).to(self.device, dtype)

    def _gather(self) -> None:
        # Methods that change batches draw their numbers on the CPU.
        device = torch.device("cpu") if self.members[0].batch_methods else self.device
        self.pool = RowPool([member.rows.train for member in self.members], device)

    def seat(self, place: int, member: Member) -> None:
        """Let `member` train in `place` from now on; `arrange` has to follow."""
        self.members[place] = member
        self.stack.load(place, member.network)
        for name, vectors in self.vectors.items():
            vectors[place] = member.state.tensors[name]

    def arrange(self, places: Sequence[int]) -> None:
        """Go on with the members in `places`, in this order."""
        if list(places) != list(range(len(self.members))):
            rows = torch.tensor(places, device=self.device)
            self.stack.take(places)
            self.vectors = {name: vectors[rows] for name, vectors in self.vectors.items()}
            self.members = [self.members[place] for place in places]
        self._gather()

    # One epoch

    def run_epoch(self) -> None:
        """Train one epoch, score it, and write it down in the members' states."""
        started = time.perf_counter()
        for member in dict.fromkeys(self.members):
            member.begin_epoch()
        self.stack.train()
        orders = torch.stack([member.order() for member in self.members])
        strengths = self._strengths()
        self._begin_draws()
        for number, (start, end) in enumerate(self.bounds):
            self._step(number, orders[:, start:end], {name: table[number] for name, table in strengths.items()})
        self._score(started)

    def _begin_draws(self) -> None:
        """Seeds (layers, V), first step (V,) and strengths (layers, steps, V) of the epoch's random numbers."""
        keys = [[0 if layer.key is None else layer.key.seed for layer in member.layers] for member in self.members]
        self._seeds = np.ascontiguousarray(np.array(keys, dtype=np.uint64).T)
        self._first_steps = np.array([member.state.step for member in self.members], dtype=np.uint64)
        self._doses = np.stack([member.doses for member in self.members], axis=2)

    def _draws(self, number: int) -> list[Draws]:
        steps = self._first_steps + np.uint64(number)
        return [Draws(seeds, steps, doses[number]) for seeds, doses in zip(self._seeds, self._doses, strict=True)]

    def _strengths(self) -> dict[str, Tensor]:
        """The strengths of all methods outside the network, (steps, V) each."""
        tables = [member.strengths for member in self.members]
        columns = {one: np.stack([table[one] for table in tables], axis=1) for one in tables[0]}
        return {one: torch.from_numpy(column).to(self.device, self.plan.dtype) for one, column in columns.items()}

    def _step(self, number: int, rows: Tensor, strengths: Strengths) -> None:
        inputs, targets, weight = self._batches(number, self.pool.take(rows))
        _, grad = self.stack.gradients(self._loss, inputs, targets, weight, dict(strengths), draws=self._draws(number))
        lr = np.array([member.lr[number] for member in self.members])
        steps = np.array([member.state.step + number + 1 for member in self.members])
        grad = self._update("before", grad, lr, strengths)
        stacked_adam_step(
            self.stack.weights, grad, self.vectors["exp_avg"], self.vectors["exp_avg_sq"],
            steps=steps, lr=lr, lr_factor=self.lr_factor, config=self.recipe.optimizer,
        )  # fmt: skip
        self._update("after", grad, lr, strengths)
        self._average(number)

    def _batches(self, number: int, batches: tuple[Inputs, Tensor, Tensor]) -> tuple[Inputs, Tensor, Tensor]:
        if not self.members[0].batch_methods:
            return batches
        (numeric, categorical), targets, weight = batches
        changed = [
            member.change(Batch(Inputs(numeric[v], categorical[v]), targets[v], weight[v]), number)
            for v, member in enumerate(self.members)
        ]
        columns = zip(*((*one.inputs, one.targets, one.weight) for one in changed), strict=True)
        numeric, categorical, targets, weight = (torch.stack(column).to(self.device) for column in columns)
        return Inputs(numeric, categorical), targets, weight

    def _loss(
        self, network: nn.Module, parameters: Mapping[str, Tensor], inputs: Inputs, targets: Tensor, weight: Tensor,
        strengths: Strengths,
    ) -> Tensor:  # fmt: skip
        task = self.plan.task
        outputs, targets, weight = rows_of_members(network(inputs), targets, weight)
        loss: Tensor = (task.row_losses(outputs, targets) * weight).mean()
        weights = {name: Weight(parameters[name], role) for name, role in self.roles.items()}
        for method in self.losses:
            forward = Forward(outputs, targets, weight, task.row_losses, task.neutral, weights)
            loss = loss + _with(method, strengths).penalty(forward)
        return loss

    @torch.no_grad()
    def _update(self, moment: str, grad: Tensor, lr: Any, strengths: Strengths) -> Tensor:
        """Let the methods of `moment` change the weights; returns what they make of the gradients."""
        methods = [method for method in self.updates if method.moment == moment]
        if not methods:
            return grad

        def of_one(weights: Tensor, grad: Tensor, lr: Tensor, strengths: Strengths) -> tuple[Tensor, Tensor]:
            weights, grad = weights.clone(), grad.clone()
            own, gradients = self.stack.split(weights), self.stack.split(grad)
            parts = {name: Weight(own[name], role, gradients[name]) for name, role in self.roles.items()}
            for method in methods:
                _with(method, strengths).update(parts, lr)  # type: ignore[arg-type] # a number of its own for each
            return weights, grad

        args = (self.stack.weights, grad, grad.new_tensor(lr), dict(strengths))
        self.stack.weights, grad = self.replays(moment, vmap(of_one), *args)
        return grad

    @torch.no_grad()
    def _average(self, number: int) -> None:
        most = max(member.rates.shape[1] for member in self.members)
        for which in range(most):
            rates = [member.rates[number, which] if which < member.rates.shape[1] else 0.0 for member in self.members]
            if any(rates):
                # A rate of 0 leaves an average as it is, bit for bit.
                self.vectors["average"].lerp_(self.stack.weights, self.stack.weights.new_tensor(rates)[:, None])

    # Scores, in eval mode with exact population statistics

    @torch.no_grad()
    def _score(self, started: float) -> None:
        averaging = torch.tensor([member.has_average() for member in self.members], device=self.device)
        weights = torch.where(averaging[:, None], self.vectors["average"], self.stack.weights)
        rows = max(max(len(member.plan.train_rows), len(member.plan.val_rows)) for member in self.members[:1])
        together = max(1, _CACHED_CELLS // (self._cells * max(1, rows)))
        train, val = [], []
        for at in range(0, len(self.members), together):
            outputs = self._outputs(slice(at, at + together), weights)
            train.append(outputs[0])
            val.append(outputs[1])
        trained, validated = torch.cat(train).cpu(), torch.cat(val).cpu()
        names = {"weights": self.stack.weights, **self.vectors}
        vectors = {name: vector.cpu() for name, vector in names.items()}
        statistics = _flat_buffers(self.stack.buffers, self.statistics, weights).cpu()
        serving = weights.cpu()
        for place, member in self._first_places():
            own = {name: vector[place] for name, vector in vectors.items()} | {"statistics": statistics[place]}
            member.end_epoch(
                own, serving[place], trained[place], validated[place], seconds=time.perf_counter() - started
            )

    def _first_places(self) -> list[tuple[int, Member]]:
        """Each member once, with a place that it fills."""
        places = {member: place for place, member in reversed(list(enumerate(self.members)))}
        return [(place, member) for member, place in places.items()]

    def _outputs(self, places: slice, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (V, N, C) for training and validation rows; the statistics in the stack become the exact ones."""
        members, size = self.members[places], max(1, _MAX_CELLS // self._cells)
        train = stacked_inputs([member.rows.train for member in members], self.device, size)
        val = stacked_inputs([member.rows.val for member in members], self.device, size)
        buffers = {name: buffer[places].clone() for name, buffer in self.stack.buffers.items()}
        outputs, buffers = self.stack.call(_outputs_of_one, (train, val), weights[places], buffers)
        for name in self.statistics:
            self.stack.buffers[name][places] = buffers[name]
        self.stack.train()
        return outputs[0], outputs[1]


def _outputs_of_one(network: nn.Module, _: Any, train: list[Inputs], val: list[Inputs]) -> tuple[Tensor, Tensor]:
    outputs = recalibrate_outputs(network, train)
    network.eval()
    if outputs is None:
        outputs = torch.cat([network(chunk) for chunk in train])
    return outputs, torch.cat([network(chunk) for chunk in val])


def _statistics_of(network: nn.Module) -> list[tuple[str, Tensor]]:
    wanted = {id(buffer) for buffer in running_statistics(network)}
    return [(name, buffer) for name, buffer in network.named_buffers() if id(buffer) in wanted]


def _flat_buffers(buffers: Mapping[str, Tensor], names: Sequence[str], like: Tensor) -> Tensor:
    return torch.cat([like.new_empty(len(like), 0), *(buffers[name].flatten(1) for name in names)], dim=1)


def _with(method: M, strengths: Strengths) -> M:
    name = type(method).__name__
    return method.with_strengths({one: strengths[f"{name}.{one}"] for one in strength_names(method)})
