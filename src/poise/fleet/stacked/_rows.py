"""The encoded rows of many variants in one place, from which batches of all of them are taken at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from poise.data import Inputs
from poise.fleet._encoded import Part


class RowPool(NamedTuple):
    """The rows of all variants; parts that several variants share are held once.

    Shape:
        first: (V, 1), where the rows of each variant begin.
        numeric, categorical, targets, weight: (rows of all parts, ...).
    """

    first: Tensor
    numeric: Tensor
    categorical: Tensor
    targets: Tensor
    weight: Tensor

    @classmethod
    def of(cls, parts: Sequence[Part], device: torch.device) -> RowPool:
        """The rows of `parts`, one for each variant and all of N rows, on a device."""
        distinct = list({id(part): part for part in parts}.values())
        place = {id(part): number for number, part in enumerate(distinct)}
        num_rows = parts[0].inputs.num_rows
        first = torch.tensor([[place[id(part)] * num_rows] for part in parts], device=device)
        columns = zip(*((*part.inputs, part.targets, part.weight) for part in distinct), strict=True)
        return cls(first, *(torch.cat(column).to(device) for column in columns))

    def take(self, rows: Tensor) -> tuple[Inputs, Tensor, Tensor]:
        """Inputs, targets and weights (V, B, ...) of the rows (V, B) of each variant."""
        places = (rows + self.first).flatten()
        numeric, categorical, targets, weight = (
            one.index_select(0, places).view(*rows.shape, *one.shape[1:]) for one in self[1:]
        )
        return Inputs(numeric, categorical), targets, weight


def stacked_inputs(parts: Sequence[Part], device: torch.device, size: int) -> list[Inputs]:
    """All inputs of the variants (V, N, ...), at most `size` rows at a time."""
    numeric, categorical = (
        torch.stack(columns).to(device) for columns in zip(*(one.inputs for one in parts), strict=True)
    )
    starts = range(0, max(1, numeric.shape[1]), size)
    return [Inputs(numeric[:, at : at + size], categorical[:, at : at + size]) for at in starts]


def taken(rows: Tensor, places: Sequence[int]) -> Tensor:
    """The rows in `places`, in this order; where there are as many as before, in the same memory."""
    made = rows[torch.tensor(places, device=rows.device)]
    return rows.copy_(made) if made.shape == rows.shape else made
