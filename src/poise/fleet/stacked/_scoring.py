"""What stacked networks predict for all their rows, with exact population statistics."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from poise.data import Inputs
from poise.fleet.stacked._fuse import evaluating
from poise.fleet.stacked._member import Member
from poise.fleet.stacked._rows import stacked_inputs
from poise.fleet.stacked._stack import Stack
from poise.fleet.stacked._tape import Tapes, moved_to
from poise.recipe import Network
from poise.surgery import recalibrate_outputs

# Rows times width that are scored in one pass: of a variant as in the plain engine, and of all together; on a CPU of as
# many as fit its cache.
_MAX_CELLS, _CACHED_CELLS = 1 << 26, 1 << 19


class Scoring:
    """Passes of all rows in eval mode, some variants at a time.

    Args:
        stack: Whose networks; the statistics of its batch normalizations become those of the training rows.
        statistics: The names of these buffers.
        network: What the networks are.
        tapes: For the passes.
    """

    def __init__(self, stack: Stack, statistics: Sequence[str], network: Network, tapes: Tapes) -> None:
        self.stack, self.statistics, self.tapes = stack, statistics, tapes
        self._cells = network.width * network.num_members
        self._tensors: dict[str, Any] = {}
        self._rows: list[Any] = []

    def outputs(self, members: Sequence[Member], weights: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (V, N, C) for the training and the validation rows of each member, on the CPU."""
        most = max(len(members[0].plan.train_rows), len(members[0].plan.val_rows), 1)
        cells = _CACHED_CELLS if self.stack.device.type == "cpu" else _MAX_CELLS
        together = max(1, cells // (self._cells * most))
        # Passes of one size, so that one tape serves all.
        together = next(size for size in range(min(together, len(members)), 0, -1) if len(members) % size == 0)
        parts = [
            self._outputs(members[at : at + together], slice(at, at + together), weights)
            for at in range(0, len(members), together)
        ]
        train, val = (torch.cat(part) for part in zip(*parts, strict=True))
        self.stack.train()
        return train, val

    def _outputs(self, members: Sequence[Member], places: slice, weights: Tensor) -> tuple[Tensor, Tensor]:
        self._load(members)
        tensors = self._tensors
        changing = {"weights": weights[places], "buffers": {n: one[places] for n, one in self.stack.buffers.items()}}
        if not moved_to({name: tensors.get(name) for name in changing}, changing):
            self._put(**tree_map(torch.clone, changing))
        if "outputs" not in tensors:
            tensors["outputs"] = [torch.empty_like(one) for one in self._passed(tensors)[0]]
        self.tapes("score", self._score, tensors)
        for name in self.statistics:
            self.stack.buffers[name][places] = tensors["buffers"][name]
        train, val = (one.clone().cpu() for one in tensors["outputs"])
        return train, val

    def _load(self, members: Sequence[Member]) -> None:
        """Have the rows of `members` where passes read them."""
        rows = [member.rows for member in members]
        if len(rows) == len(self._rows) and all(map(operator.is_, rows, self._rows)):
            return
        size, device = max(1, _MAX_CELLS // self._cells), self.stack.device
        inputs = [
            stacked_inputs(parts, device, size)
            for parts in ([one.train for one in rows], [one.val for one in rows])
        ]  # fmt: skip
        if not moved_to(self._tensors.get("inputs"), inputs):
            self._put(inputs=inputs)
        self._rows = rows

    def _put(self, **tensors: Any) -> None:
        self._tensors |= tensors
        self._tensors.pop("outputs", None)
        self.tapes.forget()

    def _passed(self, tensors: dict[str, Any]) -> tuple[Any, dict[str, Tensor]]:
        buffers = {name: buffer.clone() for name, buffer in tensors["buffers"].items()}
        return self.stack.call(_outputs_of_one, tuple(tensors["inputs"]), tensors["weights"], buffers)

    @torch.no_grad()
    def _score(self, tensors: dict[str, Any]) -> None:
        outputs, buffers = self._passed(tensors)
        for place, output in zip(tensors["outputs"], outputs, strict=True):
            place.copy_(output)
        for name in self.statistics:
            tensors["buffers"][name].copy_(buffers[name])


def _outputs_of_one(network: nn.Module, _: Any, train: list[Inputs], val: list[Inputs]) -> tuple[Tensor, Tensor]:
    if len(train) == 1:  # then one pass measures all layers
        with evaluating(network, measure=True):
            outputs = recalibrate_outputs(network, train)
    else:
        outputs = recalibrate_outputs(network, train)
    network.eval()
    with evaluating(network, measure=False):
        if outputs is None:
            outputs = torch.cat([network(chunk) for chunk in train])
        return outputs, torch.cat([network(chunk) for chunk in val])
