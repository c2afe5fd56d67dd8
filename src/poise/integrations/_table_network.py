"""From raw columns to predictions in one torch module of operators that ONNX has."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from poise.data._scale import QuantileScale, RobustScale
from poise.integrations._calendar import MISSING, date_cycles, date_numbers
from poise.integrations._normal import normal_quantile
from poise.nn import TabularNetwork
from poise.train import Predictor

_SMALLEST_SHARE = 1e-7
_FURTHEST = 1e100  # in units of the scale: the limit is reached long before, and squares do not overflow


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
    """`QuantileScale`, with knots found by bisection in all columns at once."""

    knots: Tensor
    padded: Tensor

    def __init__(self, scale: QuantileScale) -> None:
        super().__init__()
        knots = scale.knots / 4
        self.num_knots = knots.shape[1]
        width = 1 << (self.num_knots - 1).bit_length()
        padding = torch.full((len(knots), width - self.num_knots), torch.inf, dtype=torch.float64)
        self.register_buffer("knots", knots)
        self.register_buffer("padded", torch.cat((knots, padding), dim=1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) scaled numbers for (B, D) raw ones."""
        x = (x / 4).T
        share = (self._share(x, right=True) + self._share(x, right=False)) / 2
        return normal_quantile(share.clamp(_SMALLEST_SHARE, 1 - _SMALLEST_SHARE)).T

    def _share(self, x: Tensor, *, right: bool) -> Tensor:
        """The share of training values below x; of equal knots the last counts, or the first."""
        last = self.num_knots - 1
        before = (self._count(x, right=right) - 1).clamp(0, last - 1)
        low, high = torch.gather(self.knots, 1, before), torch.gather(self.knots, 1, before + 1)
        within = (x - low) / torch.where(high > low, high - low, 1.0)
        share = (before.double() + within.clamp(0, 1)) / last
        # On a step the quotient above says nothing, and the end of the step is meant.
        at_end = x >= high if right else x > high
        return torch.where(at_end, (before.double() + 1) / last, share)

    def _count(self, x: Tensor, *, right: bool) -> Tensor:
        """How many knots of its column are below each x, or equal to it with `right`."""
        count, step = torch.zeros(x.shape, dtype=torch.int64), self.padded.shape[1] // 2
        while step:
            knot = torch.gather(self.padded, 1, count + step - 1)
            is_below = knot <= x if right else knot < x
            count = count + step * is_below.to(torch.int64)
            step //= 2
        knot = torch.gather(self.padded, 1, count)
        return count + (knot <= x if right else knot < x).to(torch.int64)


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
        is_robust = isinstance(encoder.scale, RobustScale)
        self.scaling = Robust(encoder.scale) if is_robust else Quantile(encoder.scale)
        network = copy.deepcopy(predictor.network)
        if not isinstance(network, TabularNetwork):
            raise TypeError(f"{type(network).__name__} is no TabularNetwork")
        # Bins may be so narrow that float32 cannot tell their ends apart.
        self.numbers, self.categories, self.mlp = network.numbers, network.categories, network.mlp.float()
        if self.categories is not None:
            self.categories.float()
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
        parts = self._numeric(raw)
        if self.categories is not None and raw.category is not None:
            parts.append(self.categories(raw.category))
        outputs = self.task.predict(self.mlp(torch.cat([one.float() for one in parts], dim=1)))
        return outputs.double() * self.scale + self.mean if self.task.kind == "regression" else outputs

    def _numeric(self, raw: Raw) -> list[Tensor]:
        parts = []
        dates = None if raw.date is None else date_numbers(raw.date)
        numbers = [one for one in (raw.number, dates) if one is not None]
        if numbers:
            joined = torch.cat(numbers, dim=1)
            is_missing = joined.isnan()
            scaled = torch.where(is_missing, 0.0, self.scaling(torch.where(is_missing, 0.0, joined)))
            parts.append(scaled if self.numbers is None else self.numbers(scaled))
        if raw.boolean is not None:
            parts.append(torch.where(raw.boolean.isnan(), 0.0, raw.boolean))
        for index, column in enumerate(self.encoder.schema.of("date")):
            if raw.date is not None:
                parts.append(date_cycles(raw.date[:, index], clock=column.name in self.encoder.clocks))
        gaps = self._gaps(raw)
        return [*parts, torch.stack(gaps, dim=1)] if gaps else parts

    def _gaps(self, raw: Raw) -> list[Tensor]:
        """1 where a value is missing, for each column with an indicator of gaps."""
        found = {}
        for kind in ("number", "boolean", "date"):
            for index, column in enumerate(self.encoder.schema.of(kind)):
                cells: Tensor = getattr(raw, kind)[:, index]
                found[column.name] = cells == MISSING if kind == "date" else cells.isnan()
        return [found[name].double() for name in self.encoder.gaps]
