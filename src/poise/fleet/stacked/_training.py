"""Trainings of one structure, step by step and side by side."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap

from poise.data import Inputs
from poise.fleet.stacked._adam import adam_step
from poise.fleet.stacked._member import Member, strengthened
from poise.fleet.stacked._noise import Draws, Supply, draw
from poise.fleet.stacked._rows import RowPool, taken
from poise.fleet.stacked._scoring import Scoring
from poise.fleet.stacked._stack import Stack
from poise.fleet.stacked._tables import ROWS, names_of, num_averages, step_tables
from poise.fleet.stacked._tape import Tapes, moved_to
from poise.methods import Batch, Forward, LossMethod, UpdateMethod, Weight
from poise.surgery import weights_of
from poise.train import rows_of_members, running_statistics

_VECTORS = ("exp_avg", "exp_avg_sq", "average")
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
        self.vectors = {
            name: torch.stack([member.state.tensors[name] for member in members]).to(device) for name in _VECTORS
        }
        self.roles = {name: weight.role for name, weight in weights_of(self.stack.template).items()}
        self.statistics = [name for name, _ in _statistics_of(self.stack.template)]
        self.losses, self.updates = self.recipe.of(LossMethod), self.recipe.of(UpdateMethod)
        self.tapes = Tapes()
        self._scoring = Scoring(self.stack, self.statistics, self.recipe.network, Tapes())
        # What steps read and change; it stays where it is.
        self._tensors: dict[str, Any] = self.vectors | {
            "weights": self.stack.weights,
            "buffers": self.stack.buffers,
            "number": torch.zeros(1, dtype=torch.int64, device=device),
        }
        self._of_size: dict[int, dict[str, Any]] = {}
        self._seen: dict[int, Any] = {}
        if (factor := self._lr_factor()) is not None:
            self._tensors["lr_factor"] = factor
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
        self._put("pool", RowPool.of([member.rows.train for member in self.members], device))

    def _put(self, name: str, tensors: Any) -> None:
        """Let steps find these tensors under `name`: where the last ones lie, if they fit in there."""
        if not moved_to(self._tensors.get(name), tensors):
            self._tensors[name] = tensors
            self._of_size.clear()
            self.tapes.forget()

    def seat(self, place: int, member: Member) -> None:
        """Let `member` train in `place` from now on; `arrange` has to follow."""
        self.members[place] = member
        self.stack.load(place, member.network)
        for name, vectors in self.vectors.items():
            vectors[place] = member.state.tensors[name]

    def arrange(self, places: Sequence[int]) -> None:
        """Go on with the members in `places`, in this order."""
        if list(places) != list(range(len(self.members))):
            self.stack.take(places)
            for vectors in self.vectors.values():
                taken(vectors, places)
            self.members = [self.members[place] for place in places]
        self._gather()

    # One epoch

    def run_epoch(self) -> None:
        """Train one epoch, score it, and write it down in the members' states."""
        started = time.perf_counter()
        for member in dict.fromkeys(self.members):
            member.begin_epoch()
        self.stack.train()
        self._begin_steps()
        for number, (start, end) in enumerate(self.bounds):
            self._step(number, end - start)
        self._score(started)

    def _begin_steps(self) -> None:
        start, end = self.bounds[0]
        passes = self._passes(end - start)
        tables = step_tables(self.members, [len(one) for one in passes])
        self._names = names_of(self.members)
        self._tensors["number"].zero_()
        for name, table in tables.items():
            dtype = self.plan.dtype if name == "reals" else None
            self._put(name, torch.from_numpy(table).to(self.device, dtype))
        self._tables = tables

    def _passes(self, size: int) -> Any:
        """What the layers that draw get in a step with batches of `size` rows."""
        if size not in self._seen:
            numeric, categorical = (one[:size].to(self.device) for one in self._tensors["pool"][1:3])
            self._seen[size] = self.stack.passes(Inputs(numeric, categorical))
        return self._seen[size]

    def _step(self, number: int, size: int) -> None:
        if size not in self._of_size:
            self._of_size[size] = self._tensors | {"drawn": self._rooms(size)}
        self._draw(number, size)
        if self.members[0].batch_methods:
            self._change_batch(number, size)
        self.tapes(size, partial(self._advance, size), self._of_size[size])

    def _rooms(self, size: int) -> list[list[Tensor]]:
        """Where the numbers of layers go that do not draw on the device themselves."""
        return [
            [] if named else [torch.empty(len(self.members), *layer.noise_shape(shape), dtype=dtype, device=self.device)
                              for shape, dtype in passes]
            for layer, passes, named in zip(self.stack.drawn, self._passes(size), self.stack.named, strict=True)
        ]  # fmt: skip

    def _draw(self, number: int, size: int) -> None:
        rooms, passes = self._of_size[size]["drawn"], self._passes(size)
        for index, (layer, own) in enumerate(zip(self.stack.drawn, rooms, strict=True)):
            if own:
                seeds = self._tables["seeds"][index].view(np.uint64)
                steps = np.array([member.state.step + number for member in self.members], dtype=np.uint64)
                draws = Draws(seeds, steps, np.ascontiguousarray(self._tables["doses"][number, index]))
                drawn = draw(layer, draws, passes[index], self.device, named=False)
                for room, (numbers, _) in zip(own, drawn, strict=True):
                    room.copy_(numbers)

    def _change_batch(self, number: int, size: int) -> None:
        """Let the methods of each member make its batch."""
        rows = torch.from_numpy(self._tables["order"][number, :, :size])
        (numeric, categorical), targets, weight = self._tensors["pool"].take(rows)
        changed = [
            member.change(Batch(Inputs(numeric[v], categorical[v]), targets[v], weight[v]), number)
            for v, member in enumerate(self.members)
        ]
        columns = zip(*((*one.inputs, one.targets, one.weight) for one in changed), strict=True)
        batch = [torch.stack(column).to(self.device) for column in columns]
        own = self._of_size[size]
        if not moved_to(own.get("batch"), batch):
            own["batch"] = batch
            self.tapes.forget()

    @torch.no_grad()
    def _advance(self, size: int, tensors: dict[str, Any]) -> None:
        """One step of all members, in place; what differs between steps is in `tensors`."""
        rows = {name: tensors[name].index_select(0, tensors["number"]).squeeze(0) for name in ROWS}
        reals = dict(zip(self._names, rows["reals"].unbind(), strict=True))
        batch = tensors.get("batch")
        if batch is None:
            inputs, targets, weight = tensors["pool"].take(rows["order"][:, :size])
        else:
            (numeric, categorical, targets, weight) = batch
            inputs = Inputs(numeric, categorical)
        supplies = self._supplies(size, tensors, rows)
        weights, buffers = tensors["weights"], {name: tensors["buffers"][name].clone() for name in self.stack.moving}
        mapped = (inputs, targets, weight, reals)
        _, grad, buffers = self.stack.differentiate(self._loss, 0, weights, buffers, supplies, mapped)
        for name, buffer in buffers.items():
            tensors["buffers"][name].copy_(buffer)
        self._update("before", weights, grad, reals)
        adam_step(tensors, grad, reals, self.recipe.optimizer)
        self._update("after", weights, grad, reals)
        for which in range(num_averages(self.members)):
            # A rate of 0 leaves an average as it is, bit for bit.
            tensors["average"].lerp_(weights, reals[f"average {which}"][:, None])
        tensors["number"].add_(1)

    def _supplies(self, size: int, tensors: dict[str, Any], rows: dict[str, Tensor]) -> list[Supply]:
        steps, supplies = iter(rows["steps"].unbind()), list[Supply]()
        for index, (passes, named) in enumerate(zip(self._passes(size), self.stack.named, strict=True)):
            dose, taken = rows["doses"][index], [next(steps) for _ in passes]
            if named:
                supplies.append([(tensors["seeds"][index], step, dose, dose > 0) for step in taken])
            else:
                supplies.append([(numbers, dose) for numbers in tensors["drawn"][index]])
        return supplies

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
            loss = loss + strengthened(method, strengths).penalty(forward)
        return loss

    def _update(self, moment: str, weights: Tensor, grad: Tensor, reals: Strengths) -> None:
        """Let the methods of `moment` change weights and gradients in place."""
        methods = [method for method in self.updates if method.moment == moment]

        def of_one(weights: Tensor, grad: Tensor, reals: Strengths) -> Tensor:
            own, gradients = self.stack.split(weights), self.stack.split(grad)
            parts = {name: Weight(own[name], role, gradients[name]) for name, role in self.roles.items()}
            for method in methods:
                strengthened(method, reals).update(parts, reals["lr"])  # type: ignore[arg-type] # a number of its own for each
            return weights.new_zeros(())  # vmap wants a result

        if methods:
            vmap(of_one)(weights, grad, reals)

    # Scores, in eval mode with exact population statistics

    @torch.no_grad()
    def _score(self, started: float) -> None:
        averaging = torch.tensor([member.has_average() for member in self.members], device=self.device)
        weights = torch.where(averaging[:, None], self.vectors["average"], self.stack.weights)
        trained, validated = self._scoring.outputs(self.members, weights)
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


def _statistics_of(network: nn.Module) -> list[tuple[str, Tensor]]:
    wanted = {id(buffer) for buffer in running_statistics(network)}
    return [(name, buffer) for name, buffer in network.named_buffers() if id(buffer) in wanted]


def _flat_buffers(buffers: Mapping[str, Tensor], names: Sequence[str], like: Tensor) -> Tensor:
    return torch.cat([like.new_empty(len(like), 0), *(buffers[name].flatten(1) for name in names)], dim=1)
