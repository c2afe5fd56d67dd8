"""Raw columns as a network reads them, and a network that reads them, in operators that ONNX has."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from poise.data import Column, Encoder
from poise.data._buckets import FIRST, RARE, UNKNOWN, Buckets
from poise.data._scale import QuantileScale, RobustScale
from poise.integrations._calendar import date_parts
from poise.integrations._normal import normal_quantile
from poise.nn import TabularNetwork
from poise.train import Predictor

_SMALLEST_SHARE = 1e-7
# In units of the scale: the limit is reached before, squares do not overflow, and float32, to which exporters round
# bounds, has it.
_FURTHEST = 1e9
Present = tuple[bool, bool, bool]


class Raw(NamedTuple):
    """The columns of a table by kind; None for a kind without columns.

    Shape:
        number: (B, ·) float64, NaN where missing.
        boolean: (B, ·) float64 of 0, 1 and NaN.
        instant: (B, 2 ·) float64, the numbers of `DateParts`.
        cycle: (B, 8 ·) float64, the cycles of `DateParts`.
        category: (B, ·) int64, codes of `Vocabulary`.
    """

    number: Tensor | None
    boolean: Tensor | None
    instant: Tensor | None
    cycle: Tensor | None
    category: Tensor | None


class Encoded(NamedTuple):
    """What networks read, as `Inputs` has it; None for what there is not.

    Shape:
        scaled: (B, number of scaled numbers) float64.
        others: (B, ·) float64, the other columns of `Inputs.numeric`.
        category: (B, ·) int64 buckets.
    """

    scaled: Tensor | None
    others: Tensor | None
    category: Tensor | None


@dataclass(frozen=True)
class Vocabulary:
    """What a category column may hold: code 0 is for all that was never seen, then the names, last a gap.

    Args:
        names: That one encoder or another saw in training, in order of their text.
    """

    names: tuple[str, ...]

    @classmethod
    def of(cls, encoders: Sequence[Encoder], column: int) -> Vocabulary:
        """Of the category column numbered `column`."""
        seen = (one.buckets[column] for one in encoders)
        return cls(tuple(sorted({name for buckets in seen for name in (*buckets.kept, *buckets.rare)})))

    @property
    def missing(self) -> int:
        """Code of a gap."""
        return len(self.names) + 1

    def buckets_of(self, buckets: Buckets) -> Tensor:
        """The bucket of each code."""
        known = dict.fromkeys(buckets.rare, RARE) | {name: FIRST + i for i, name in enumerate(buckets.kept)}
        gap = buckets.size - 1 if buckets.has_missing else UNKNOWN
        return torch.tensor([UNKNOWN, *(known.get(name, UNKNOWN) for name in self.names), gap])


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


class Dates(nn.Module):
    """What dates consist of, once for all encodings."""

    def forward(self, date: Tensor) -> tuple[Tensor, Tensor]:
        """`instant` and `cycle` of `Raw` for (B, ·) int64 microseconds since 1970, -2⁶³ where missing."""
        parts = date_parts(date)
        return parts.numbers.flatten(1), parts.cycles.flatten(1)


class TableEncoding(nn.Module):
    """Encodes raw columns as `Encoder` does, in float64.

    Args:
        encoder: Is left as it is.
        vocabularies: Of each category column.
    """

    def __init__(self, encoder: Encoder, vocabularies: Sequence[Vocabulary]) -> None:
        super().__init__()
        schema, scale = encoder.schema, encoder.scale
        dates = schema.of("date")
        self.has = tuple(bool(schema.of(kind)) for kind in ("number", "boolean", "date", "date", "category"))
        self.makes: Present = (
            encoder.num_continuous > 0, encoder.num_numeric > encoder.num_continuous, bool(encoder.buckets)
        )  # fmt: skip
        self.scaling = Robust(scale) if isinstance(scale, RobustScale) else Quantile(scale)
        self.cycles = tuple(8 * at + part for at, one in enumerate(dates) for part in range(_parts(one, encoder)))
        self.gaps = tuple(_place(encoder, name) for name in encoder.gaps)
        self.num_categories = len(vocabularies)
        for index, (known, buckets) in enumerate(zip(vocabularies, encoder.buckets, strict=True)):
            self.register_buffer(f"buckets{index}", known.buckets_of(buckets))

    def forward(self, *groups: Tensor) -> tuple[Tensor, ...]:
        """The entries of `Encoded` that are not None.

        Args:
            groups: The entries of `Raw` that are not None, in order.
        """
        given = iter(groups)
        raw = Raw(*(next(given) if has else None for has in self.has))
        others = [] if raw.boolean is None else [torch.where(raw.boolean.isnan(), 0.0, raw.boolean)]
        others += [] if raw.cycle is None else [raw.cycle[:, torch.tensor(self.cycles)]]
        gaps = [getattr(raw, kind)[:, index].isnan() for kind, index in self.gaps]
        others += [torch.stack(gaps, dim=1).double()] if gaps else []
        made = Encoded(self._scaled(raw), torch.cat(others, dim=1) if others else None, self._buckets(raw.category))
        return tuple(one for one in made if one is not None)

    def _scaled(self, raw: Raw) -> Tensor | None:
        numbers = [one for one in (raw.number, raw.instant) if one is not None]
        if not numbers:
            return None
        joined = torch.cat(numbers, dim=1)
        is_missing = joined.isnan()
        return torch.where(is_missing, 0.0, self.scaling(torch.where(is_missing, 0.0, joined)))

    def _buckets(self, codes: Tensor | None) -> Tensor | None:
        if codes is None:
            return None
        columns = range(self.num_categories)
        return torch.stack([self.get_buffer(f"buckets{index}")[codes[:, index]] for index in columns], dim=1)


def _parts(column: Column, encoder: Encoder) -> int:
    """Without the time of day of dates that have none."""
    return 8 if column.name in encoder.clocks else 6


def _place(encoder: Encoder, name: str) -> tuple[str, int]:
    """The entry of `Raw`, and the column in it, that is NaN where column `name` is missing."""
    kind = next(one.kind for one in encoder.schema.features if one.name == name)
    index = [one.name for one in encoder.schema.of(kind)].index(name)
    return ("instant", 2 * index) if kind == "date" else (kind, index)


class TableNetwork(nn.Module):
    """Predicts as `Predictor` does, in float32, from what its encoder made.

    Args:
        predictor: Is left as it is.
        reads: Which entries of `Encoded` are there.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, predictor: Predictor, reads: Present) -> None:
        super().__init__()
        self.reads = reads
        self.task = predictor.task
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

    def forward(self, *groups: Tensor) -> Tensor:
        """Class probabilities (B, C) in float32, or values (B,) in float64.

        Args:
            groups: The entries of `Encoded` that are not None, in order.
        """
        given = iter(groups)
        encoded = Encoded(*(next(given) if has else None for has in self.reads))
        parts = []
        if encoded.scaled is not None:
            parts.append(encoded.scaled if self.numbers is None else self.numbers(encoded.scaled))
        if encoded.others is not None:
            parts.append(encoded.others)
        if encoded.scaled is not None and self.periodic is not None:
            parts.append(self.periodic(encoded.scaled.float()))
        if encoded.category is not None and self.categories is not None:
            parts.append(self.categories(encoded.category))
        outputs = self.mlp(torch.cat([one.float() for one in parts], dim=1))
        outputs = self.task.predict(outputs if outputs.ndim < 3 else self.task.average(outputs))
        return outputs.double() * self.scale + self.mean if self.task.kind == "regression" else outputs
