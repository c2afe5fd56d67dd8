"""Models of one structure, trained side by side as one stack on the same batches."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn.functional import one_hot
from torch.utils._pytree import tree_leaves, tree_map

from poise.fleet.modules._built import Built
from poise.fleet.modules._job import ROWS_OF_A_SCORE, Job
from poise.fleet.modules._objective import Reader, objective, reads_outputs
from poise.fleet.modules._record import mean_of, record_epoch
from poise.fleet.modules._seeded import seeded
from poise.fleet.modules._state import ModuleState
from poise.fleet.modules._statistics import Moments, Pool, buffer_names, moments_of, moving_norms
from poise.fleet.stacked._adam import adam_factors, adam_step
from poise.fleet.stacked._member import Values, strengthened, strengths_of
from poise.fleet.stacked._stack import Stack
from poise.fleet.stacked._tape import Tapes, moved_to
from poise.functional.schedule import value_at
from poise.methods import AverageMethod, BatchMethod, Clock, GradientClip, LossMethod, UpdateMethod, Weight
from poise.recipe import Recipe
from poise.surgery import modes, weights_of

_PREFIX = "model."  # of `Reader`
_VECTORS = ("exp_avg", "exp_avg_sq", "average")
Strengths = Mapping[str, Tensor]


@dataclass(eq=False)
class Member:
    """A training that takes part.

    Args:
        recipe: How it goes.
        state: Where it stands; changed after each epoch.
        built: Its model, as fresh from `build`.
    """

    recipe: Recipe
    state: ModuleState
    built: Built

    def __post_init__(self) -> None:
        if self.state.epoch:
            self.built.load(self.state.tensors)
            self.built.load_counters(self.state.counters, self.state.tensors)
        self.averaging = any(self.built.counters()["averaging"])

    def vector(self, name: str) -> Tensor:
        """What the state keeps under `name`, over all parameters."""
        tensors, parts = self.state.tensors, []
        for path, parameter in self.built.model.named_parameters():
            empty = parameter.detach() if name == "average" else torch.zeros_like(parameter)
            parts.append(tensors.get(f"{name}/{path}", empty).reshape(-1).to(parameter.device))
        return torch.cat(parts)


class StackedLoop:
    """Trainings of one structure that have done the same number of epochs.

    Args:
        job: What is trained on what.
        members: Two or more of one `structure`.
    """

    name = "stacked"

    def __init__(self, job: Job, members: Sequence[Member]) -> None:
        self.job, self.members = job, list(members)
        first = members[0]
        self.recipe, self.num_steps = first.recipe, first.built.num_steps
        self.stack = Stack([Reader(one.built.model) for one in members])
        self.tapes = Tapes()
        self.vectors = {name: torch.stack([one.vector(name) for one in members]) for name in _VECTORS}
        self.names = {name: one.requires_grad for name, one in first.built.model.named_parameters()}
        known = weights_of(first.built.model)
        self.roles = {f"{_PREFIX}{name}": one.role for name, one in known.items() if one.tensor.requires_grad}
        self.losses, self.updates = self.recipe.of(LossMethod), self.recipe.of(UpdateMethod)
        self.reads, self.mixes = reads_outputs(self.recipe), bool(self.recipe.of(BatchMethod))
        self.norms = moving_norms(self.stack.template)
        self.lr_factor = self._lr_factor()
        self._place()

    def _lr_factor(self) -> Tensor:
        """Of each weight: that of its role, and 0 for what is not trained."""
        of_role = {"bias": self.recipe.optimizer.bias_lr}
        factors = {name: of_role.get(role, 1.0) for name, role in self.roles.items()}
        parts = [torch.full((shape.numel(),), factors.get(name, 0.0)) for name, shape in self.stack.shapes.items()]
        return torch.cat(parts).to(self.stack.weights)

    def keep(self, places: Sequence[int]) -> None:
        """Go on with the members in `places`, in this order."""
        rows = torch.tensor(places, device=self.stack.device)
        self.stack.take(places)
        self.vectors = {name: vectors[rows] for name, vectors in self.vectors.items()}
        self.members = [self.members[place] for place in places]
        self._place()

    def _place(self) -> None:
        """Have steps find what they read and change, which stays where it is."""
        self.tapes.forget()
        self._kept: dict[str, Any] = self.vectors | {
            "weights": self.stack.weights, "buffers": self.stack.buffers, "lr_factor": self.lr_factor
        }  # fmt: skip
        self._of_kind: dict[Any, dict[str, Any]] = {}

    # One epoch

    def run_epoch(self) -> None:
        """Train one epoch, score it, and write it down in the members' states."""
        started = time.perf_counter()
        epoch = self.members[0].state.epoch
        steps = range(epoch * self.num_steps, (epoch + 1) * self.num_steps)
        self._begin(steps)
        with seeded(self.job.key.stream("epoch", epoch)):
            order = self.job.key.stream("order").at(epoch)
            batches = self.job.train.shuffled(order, self.recipe.budget.batch_size)
            for step, (x, y) in zip(steps, batches, strict=True):
                self._step(step - steps.start, x, y)
        with seeded(self.job.key.stream("score")):
            self._score(started)

    def _begin(self, steps: range) -> None:
        """All numbers of the coming epoch: learning rates (steps, V), strengths likewise, rates of averages."""
        total = self.num_steps * self.job.max_epochs
        progress = [step / total for step in steps]
        recipes = [one.recipe for one in self.members]
        lr = np.array([[value_at(one.optimizer.lr, at) for one in recipes] for at in progress])
        rate, root = adam_factors(np.array(steps)[:, None] + 1, lr, self.recipe.optimizer)
        tables = [_strengths(one, progress) for one in recipes]
        strengths = {name: np.stack([one[name] for one in tables], axis=1) for name in tables[0]}
        clocks = [Clock(step + 1, self.num_steps, total) for step in steps]
        self._rates = np.array([[_rate(one, clock) for one in recipes] for clock in clocks])
        reals = {"lr": lr, "rate": rate, "root": np.broadcast_to(root, lr.shape), "average": self._rates, **strengths}
        self._names = list(reals)
        self._reals = torch.from_numpy(np.stack(list(reals.values()), axis=1)).to(self.stack.weights)

    def _step(self, number: int, x: Any, y: Tensor) -> None:
        x, y, shared = self._batches(x, y)
        changing = {"x": x, "y": y, "supplies": self.stack.supplies(x, shared=shared), "reals": self._reals[number]}
        kind = (shared, *(one.shape for one in tree_leaves(changing)), y.dtype)
        if kind not in self._of_kind:
            self._of_kind[kind] = self._kept | tree_map(torch.clone, changing)
        else:
            moved_to({name: self._of_kind[kind][name] for name in changing}, changing)
        self.tapes(kind, partial(self._advance, shared), self._of_kind[kind])
        for member, rate in zip(self.members, self._rates[number], strict=True):
            member.built.regimen.count_step()
            member.averaging |= bool(rate)

    @torch.no_grad()
    def _advance(self, shared: int, tensors: dict[str, Any]) -> None:
        """One step of all members, in place."""
        reals = dict(zip(self._names, tensors["reals"].unbind(), strict=True))
        weights, buffers = tensors["weights"], {name: tensors["buffers"][name].clone() for name in self.stack.moving}
        mapped = (tensors["x"], tensors["y"], reals)
        _, grad, buffers = self.stack.differentiate(self._loss, shared, weights, buffers, tensors["supplies"], mapped)
        for name, buffer in buffers.items():
            tensors["buffers"][name].copy_(buffer)
        self._update("before", weights, grad, reals)
        adam_step(tensors, grad, reals, self.recipe.optimizer)
        self._update("after", weights, grad, reals)
        if any(_averages(one.recipe) for one in self.members):
            # A rate of 0 leaves an average as it is, bit for bit.
            tensors["average"].lerp_(weights, reals["average"][:, None])

    def _batches(self, x: Any, y: Tensor) -> tuple[Any, Tensor, int]:
        """What the members read, and how many of x and y they share."""
        if not self.mixes:
            return *self._moved((x, y)), 2
        pairs = [member.built.regimen.batch(x, y) for member in self.members]
        targets = [y if own is None else own for _, own in pairs]
        soft = next((one for one in targets if one.is_floating_point()), None)
        if soft is not None and not y.is_floating_point():  # some have mixed their classes, others not
            targets = [one if one.is_floating_point() else _probabilities(one, soft) for one in targets]
        own = tree_map(lambda *ones: torch.stack(ones), *(own for own, _ in pairs))
        return *self._moved((own, torch.stack(targets))), 0

    def _moved(self, pair: Any) -> Any:
        return tree_map(lambda one: one.to(self.stack.device) if isinstance(one, Tensor) else one, pair)

    def _loss(
        self, network: nn.Module, parameters: Mapping[str, Tensor], x: Any, y: Tensor, strengths: Strengths
    ) -> Tensor:
        weights = {name: Weight(parameters[name], role) for name, role in self.roles.items()}
        methods = [strengthened(method, strengths) for method in self.losses]
        return objective(self.job, methods, weights, network(x), y, reads=self.reads)

    def _update(self, moment: str, weights: Tensor, grad: Tensor, reals: Strengths) -> None:
        """Let the methods of `moment` change weights and gradients in place."""
        methods = [method for method in self.updates if method.moment == moment]
        factor = self.recipe.optimizer.bias_lr

        def of_one(weights: Tensor, grad: Tensor, reals: Strengths) -> Tensor:
            own, gradients = self.stack.split(weights), self.stack.split(grad)
            parts = {name: Weight(own[name], role, gradients[name]) for name, role in self.roles.items()}
            biases = {name: one for name, one in parts.items() if one.role == "bias" and factor != 1}
            others = {name: one for name, one in parts.items() if name not in biases}
            for method in methods:
                # The norm of a gradient is one number for all; everything else goes by learning rate.
                groups = ((parts, 1.0),) if isinstance(method, GradientClip) else ((others, 1.0), (biases, factor))
                for group, share in groups:
                    if group:
                        lr: Any = reals["lr"] * share  # a number of its own for each
                        strengthened(method, reals).update(group, lr)
            return weights.new_zeros(())  # vmap wants a result

        if methods:
            vmap(of_one)(weights, grad, reals)

    # Scores, in eval mode, of the weights that predict

    @torch.no_grad()
    def _score(self, started: float) -> None:
        averaging = torch.tensor([one.averaging for one in self.members], device=self.stack.device)
        weights = torch.where(averaging[:, None], self.vectors["average"], self.stack.weights)
        buffers = {name: one.clone() for name, one in self.stack.buffers.items()}
        with modes(self.stack.template, training=False):
            self._settle(weights, buffers)
            parts, rows = self._losses(weights, buffers)
        seconds = (time.perf_counter() - started) / len(self.members)
        held = {"weights": self.stack.weights, **self.vectors}
        for place, member in enumerate(self.members):
            own = [float(part[place]) for part in parts]
            tensors = {name: vectors[place].cpu() for name, vectors in held.items()}
            record_epoch(
                member.state, member.built, own, mean_of(own, rows), max_epochs=self.job.max_epochs,
                tensors=self._tensors(member, tensors) | self._buffers(self.stack.buffers, place),
                serving=partial(self._serving, weights, buffers, place),
                counters=member.built.counters() | {"averaging": [member.averaging] * len(_averages(member.recipe))},
                engine=self.name, seconds=seconds,
            )  # fmt: skip

    def _serving(self, weights: Tensor, buffers: Mapping[str, Tensor], place: int) -> dict[str, Tensor]:
        return self._parts("weights", weights[place]) | self._buffers(buffers, place)

    def _settle(self, weights: Tensor, buffers: dict[str, Tensor]) -> None:
        """Give the batch normalizations their statistics over all training rows."""
        if not self.norms:
            return
        pool, counts = Pool(), dict[str, int]()

        def of_one(network: nn.Module, _: Any, x: Any) -> Moments:
            return moments_of(self.norms, lambda: network(x), counts)

        for x, _ in self.job.train.in_order(ROWS_OF_A_SCORE):
            moments, _ = self.stack.call(of_one, (self._moved(x),), weights, dict(buffers), shared=1)
            pool.add(moments, counts)
        names = buffer_names(self.stack.template, self.norms)
        for path, mean, var in pool.items():
            for name, value in zip(names[path], (mean, var), strict=True):
                buffers[name] = value.to(buffers[name].dtype)

    def _losses(self, weights: Tensor, buffers: dict[str, Tensor]) -> tuple[list[Tensor], list[int]]:
        parts, rows = [], []

        def of_one(network: nn.Module, _: Any, x: Any, y: Tensor) -> Tensor:
            return self.job.loss(network(x), y)

        for x, y in self.job.val.in_order(ROWS_OF_A_SCORE):
            losses, _ = self.stack.call(of_one, self._moved((x, y)), weights, dict(buffers), shared=2)
            parts.append(losses.cpu())
            rows.append(len(y))
        return parts, rows

    def _tensors(self, member: Member, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, vector in vectors.items():
            if name != "average" or _averages(member.recipe):
                found |= self._parts(name, vector, trained=name != "weights")
        step = torch.tensor(float(member.built.regimen.num_steps_done))
        return found | {f"step/{name}": step.clone() for name, is_trained in self.names.items() if is_trained}

    def _parts(self, name: str, vector: Tensor, *, trained: bool = False) -> dict[str, Tensor]:
        parts = self.stack.split(vector)
        paths = [path for path, is_trained in self.names.items() if is_trained or not trained]
        return {f"{name}/{path}": parts[f"{_PREFIX}{path}"].cpu().clone() for path in paths}

    def _buffers(self, buffers: Mapping[str, Tensor], place: int) -> dict[str, Tensor]:
        return {f"buffers/{name.removeprefix(_PREFIX)}": one[place].cpu().clone() for name, one in buffers.items()}


def _averages(recipe: Recipe) -> tuple[AverageMethod, ...]:
    return recipe.of(AverageMethod)


def _rate(recipe: Recipe, clock: Clock) -> float:
    rates = [method.at(clock.progress).rate(clock) for method in _averages(recipe)]
    return rates[0] if rates else 0.0


def _strengths(recipe: Recipe, progress: list[float]) -> dict[str, Values]:
    """Of the methods on loss and update at each of `progress`, by method and field."""
    return {
        f"{type(method).__name__}.{name}": values
        for method in (*recipe.of(LossMethod), *recipe.of(UpdateMethod))
        for name, values in strengths_of(method, progress).items()
    }


def _probabilities(classes: Tensor, like: Tensor) -> Tensor:
    return one_hot(classes.long(), like.shape[1]).movedim(-1, 1).to(like)
