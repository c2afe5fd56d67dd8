"""The encoded rows of many variants in one place, from which batches of all of them are taken at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from poise.data import Inputs
from poise.fleet._encoded import Part


class RowPool:
    """The rows of all variants; parts that several variants share are held once.

    Args:
        parts: One for each variant, all of N rows.
        device: Where batches are wanted.
    """

    def __init__(self, parts: Sequence[Part], device: torch.device) -> None:
        distinct = list({id(part): part for part in parts}.values())
        place = {id(part): number for number, part in enumerate(distinct)}
        num_rows = parts[0].inputs.num_rows
        self.first = torch.tensor([[place[id(part)] * num_rows] for part in parts], device=device)
        self.numeric, self.categorical, self.targets, self.weight = (
            (columns[0] if len(columns) == 1 else torch.cat(columns)).to(device)
            for columns in zip(*((*part.inputs, part.targets, part.weight) for part in distinct), strict=True)
        )

    def take(self, rows: Tensor) -> tuple[Inputs, Tensor, Tensor]:
        """Inputs, targets and weights (V, B, ...) of the rows (V, B) of each variant."""
        places = (rows.to(self.first.device) + self.first).flatten()
        numeric, categorical, targets, weight = (
            one.index_select(0, places).view(*rows.shape, *one.shape[1:])
            for one in (self.numeric, self.categorical, self.targets, self.weight)
        )
        return Inputs(numeric, categorical), targets, weight


def stacked_inputs(parts: Sequence[Part], device: torch.device, size: int) -> list[Inputs]:
    """All inputs of the variants (V, N, ...), at most `size` rows at a time."""
    numeric, categorical = (
        torch.stack(columns).to(device) for columns in zip(*(one.inputs for one in parts), strict=True)
    )
    starts = range(0, max(1, numeric.shape[1]), size)
    return [Inputs(numeric[:, at : at + size], categorical[:, at : at + size]) for at in starts]
