"""From raw columns to predictions in one torch module of operators that ONNX has."""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from poise.data import Column, Encoder
from poise.data._scale import QuantileScale, RobustScale
from poise.integrations._calendar import MISSING, DateParts, date_parts
from poise.integrations._normal import normal_quantile
from poise.nn import TabularNetwork
from poise.train import Predictor

_SMALLEST_SHARE = 1e-7
# In units of the scale: the limit is reached before, squares do not overflow, and float32, to which exporters round
# bounds, has it.
_FURTHEST = 1e9


class Raw(NamedTuple):
    """The columns of a table by kind; None for a kind without columns.

    Shape:
        number: (B, ·) float64, NaN where missing.
        boolean: (B, ·) float64 of 0, 1 and NaN.
        date: (B, ·) int64, microseconds since 1970, -2⁶³ where missing.
        category: (B, ·) int64 buckets.
    """

    number: Tensor | None
    boolean: Tensor | None
    date: Tensor | None
    category: Tensor | None


class Robust(nn.Module):
    """`RobustScale`."""

    center: Tensor
    scale: Tensor
    varies: Tensor

    def __init__(self, scale: RobustScale) -> None:
        super().__init__()
        self.register_buffer("center", scale.center)
        self.register_buffer("scale", scale.scale.masked_fill(scale.scale == 0, 1))
        self.register_buffer("varies", scale.scale != 0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) scaled numbers for (B, D) raw ones."""
        z = ((x - self.center) / self.scale).clamp(-_FURTHEST, _FURTHEST)
        return torch.where(self.varies, z / torch.sqrt(1 + (z / 3).square()), 0.0)


class Quantile(nn.Module):
    """`QuantileScale`, with knots found among blocks and then within a block."""

    blocks: Tensor
    knots: Tensor
    at_knot: Tensor
    bounds: Tensor

    def __init__(self, scale: QuantileScale) -> None:
        super().__init__()
        knots = scale.knots / 4
        self.num_knots = knots.shape[1]
        self.width = math.isqrt(self.num_knots - 1) + 1
        padding = torch.full((len(knots), self.width**2 - self.num_knots), torch.inf, dtype=torch.float64)
        self.register_buffer("blocks", torch.cat((knots, padding), dim=1).reshape(-1, self.width, self.width))
        self.register_buffer("knots", knots)
        first, last = (torch.searchsorted(knots, knots, side=side) for side in ("left", "right"))
        # Tied values get the middle of their step.
        self.register_buffer("at_knot", (first + last - 1).double() / 2 / (self.num_knots - 1))
        bounds = torch.tensor([_SMALLEST_SHARE, 1 - _SMALLEST_SHARE], dtype=torch.float64)
        self.register_buffer("bounds", bounds)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) scaled numbers for (B, D) raw ones."""
        x = (x / 4).T
        share = self._share(x)
        # Not `clamp`, whose bounds an exporter rounds to float32.
        return normal_quantile(torch.minimum(torch.maximum(share, self.bounds[0]), self.bounds[1])).T

    def _share(self, x: Tensor) -> Tensor:
        """The share of training values below each number of (D, B)."""
        last = self.num_knots - 1
        count = self._count(x)
        before = torch.clamp(count - 1, 0, last)
        low, high = (torch.gather(self.knots, 1, torch.clamp(before + shift, 0, last)) for shift in (0, 1))
        within = (x - low) / torch.where(high > low, high - low, 1.0)
        share = torch.where(x == low, torch.gather(self.at_knot, 1, before), (before + within) / last)
        return torch.where(count == 0, 0.0, torch.where(x > self.knots[:, -1:], 1.0, share))

    def _count(self, x: Tensor) -> Tensor:
        """How many knots of its column are not above each number of (D, B)."""
        block = torch.clamp((self.blocks[:, :, 0].unsqueeze(1) <= x.unsqueeze(-1)).sum(-1) - 1, min=0)
        places = block.unsqueeze(-1).expand(-1, -1, self.width)
        inside = torch.gather(self.blocks, 1, places)
        return block * self.width + (inside <= x.unsqueeze(-1)).sum(-1)


class TableNetwork(nn.Module):
    """Encodes raw columns as `Encoder` does, in float64, and predicts as `Predictor` does, in float32.

    Args:
        predictor: Is left as it is.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        encoder = predictor.encoder
        self.encoder, self.task = encoder, predictor.task
        scale = encoder.scale
        self.scaling = Robust(scale) if isinstance(scale, RobustScale) else Quantile(scale)
        network = copy.deepcopy(predictor.network)
        if not isinstance(network, TabularNetwork):
            raise TypeError(f"{type(network).__name__} is no TabularNetwork")
        # Bins may be so narrow that float32 cannot tell their ends apart.
        self.numbers, self.categories, self.mlp = network.numbers, network.categories, network.mlp.float()
        self.periodic = network.periodic
        for part in (self.categories, self.periodic):
            if part is not None:
                part.float()
        state = predictor.state
        is_scaled = predictor.task.kind == "regression"
        self.register_buffer("mean", torch.tensor(state.target_mean if is_scaled else 0.0, dtype=torch.float64))
        self.register_buffer("scale", torch.tensor(state.target_scale if is_scaled else 1.0, dtype=torch.float64))
        self.eval()

    def forward(self, *groups: Tensor) -> Tensor:
        """Class probabilities (B, C) in float32, or values (B,) in float64.

        Args:
            groups: The entries of `Raw` that are not None, in order.
        """
        given = iter(groups)
        raw = Raw(*(next(given) if self.encoder.schema.of(kind) else None for kind in Raw._fields))
        parts, scaled = self._numeric(raw)
        if self.periodic is not None:
            parts.append(self.periodic(scaled.float()))
        if self.categories is not None and raw.category is not None:
            parts.append(self.categories(raw.category))
        outputs = self.task.predict(self.mlp(torch.cat([one.float() for one in parts], dim=1)))
        return outputs.double() * self.scale + self.mean if self.task.kind == "regression" else outputs

    def _numeric(self, raw: Raw) -> tuple[list[Tensor], Tensor]:
        """All that is made of numbers but for waves, and the scaled numbers."""
        parts, scaled = [], torch.empty(0)
        dates = None if raw.date is None else date_parts(raw.date)
        numbers = [one for one in (raw.number, dates and dates.numbers.flatten(1)) if one is not None]
        if numbers:
            joined = torch.cat(numbers, dim=1)
            is_missing = joined.isnan()
            scaled = torch.where(is_missing, 0.0, self.scaling(torch.where(is_missing, 0.0, joined)))
            parts.append(scaled if self.numbers is None else self.numbers(scaled))
        if raw.boolean is not None:
            parts.append(torch.where(raw.boolean.isnan(), 0.0, raw.boolean))
        parts += [] if dates is None else [self._cycles(dates)]
        gaps = self._gaps(raw)
        return [*parts, torch.stack(gaps, dim=1)] if gaps else parts, scaled

    def _cycles(self, dates: DateParts) -> Tensor:
        """Without the time of day of dates that have none."""
        columns = self.encoder.schema.of("date")
        kept = [8 * index + part for index, one in enumerate(columns) for part in range(_parts(one, self.encoder))]
        return dates.cycles.flatten(1)[:, torch.tensor(kept)]

    def _gaps(self, raw: Raw) -> list[Tensor]:
        """1 where a value is missing, for each column with an indicator of gaps."""
        found = {}
        for kind in ("number", "boolean", "date"):
            for index, column in enumerate(self.encoder.schema.of(kind)):
                cells: Tensor = getattr(raw, kind)[:, index]
                found[column.name] = cells == MISSING if kind == "date" else cells.isnan()
        return [found[name].double() for name in self.encoder.gaps]


def _parts(column: Column, encoder: Encoder) -> int:
    return 8 if column.name in encoder.clocks else 6
