"""A recipe in a new model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from poise._errors import PoiseWarning
from poise.fleet.modules._job import Job
from poise.fleet.modules._named import name_dropouts, name_streams, stochastic_layers
from poise.recipe import Recipe
from poise.surgery import Regimen, apply


@dataclass(frozen=True, eq=False)
class Built:
    """A model with a recipe in it.

    Args:
        model: Of the job's factory.
        regimen: Of the recipe.
        num_steps: Optimizer steps of an epoch.
        notes: Warnings that came up.
    """

    model: nn.Module
    regimen: Regimen
    num_steps: int
    notes: tuple[str, ...] = ()

    def tensors(self) -> dict[str, Tensor]:
        """Copies of its weights and buffers on the CPU, as a state keeps them."""
        weights = {f"weights/{name}": one for name, one in self.model.named_parameters()}
        buffers = {f"buffers/{name}": one for name, one in self.model.named_buffers()}
        return {name: one.detach().to("cpu", copy=True) for name, one in (weights | buffers).items()}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], prefix: str = "") -> None:
        """Take weights and buffers from those of a state whose names begin with `prefix`."""
        for name, parameter in self.model.named_parameters():
            parameter.copy_(tensors[f"{prefix}weights/{name}"])
        for name, buffer in self.model.named_buffers():
            buffer.copy_(tensors[f"{prefix}buffers/{name}"])

    def counters(self) -> dict[str, Any]:
        """Where regimen and random layers stand, as JSON takes it."""
        state = self.regimen.state_dict()
        steps = {name: layer.step for name, layer in stochastic_layers(self.model).items()}
        return {
            "num_steps_done": state["num_steps_done"], "num_batches": state["num_batches"], "steps": steps,
            "averaging": [one["has_begun"] for one in state["averages"]],
        }  # fmt: skip

    def load_counters(self, counters: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Go on from `counters`, and from the averages of a state's tensors."""
        averages = {name.removeprefix("average/"): one for name, one in tensors.items() if name.startswith("average/")}
        state = self.regimen.state_dict()
        state |= {name: counters[name] for name in ("num_steps_done", "num_batches")}
        state["averages"] = [{"tensors": averages, "has_begun": begun} for begun in counters["averaging"]]
        state["layers"] = {name: counters["steps"][name] for name in state["layers"]}
        self.regimen.load_state_dict(state)
        for name, layer in stochastic_layers(self.model).items():
            layer.step = int(counters["steps"][name])


def build(job: Job, recipe: Recipe) -> Built:
    """A new model of `job` with `recipe` in it."""
    model = job.make()
    name_dropouts(model)
    num_steps = job.train.num_batches(recipe.budget.batch_size)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PoiseWarning)
        regimen = apply(
            recipe, model, example=job.example[0], num_steps=num_steps * job.max_epochs, epoch_steps=num_steps,
            seed=job.seed,
        )  # fmt: skip
    notes = tuple(str(one.message) for one in caught if issubclass(one.category, PoiseWarning))
    name_streams(model, job.key, but=set(regimen.state_dict()["layers"]))
    return Built(model, regimen, num_steps, notes)
