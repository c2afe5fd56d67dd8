"""Scaling of numbers, fitted on training rows. Everything is float64; a gap is NaN and stays one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

# Quarters of float64 numbers differ by less than the greatest one, so neither a range nor a slope overflows.
_QUARTER = 0.25
_HUGE = float(np.finfo(np.float64).max)
_MAX_KNOTS = 1000
_SMALLEST_SHARE = 1e-7
_MIN_SPAN = 1e-3


@dataclass(frozen=True, eq=False)
class Scale(ABC):
    """Maps D columns of raw numbers to numbers of about unit size."""

    @classmethod
    @abstractmethod
    def fit(cls, columns: list[Array]) -> Self:
        """The scale of `columns`, each holding its known values in ascending order."""

    @abstractmethod
    def transform(self, values: Array) -> Array:
        """(B, D) scaled numbers for (B, D) raw ones."""

    @abstractmethod
    def to_state(self) -> dict[str, Tensor]:
        """Tensors by field name."""


@dataclass(frozen=True, eq=False)
class RobustScale(Scale):
    """y = z / sqrt(1 + (z / 3)²), z = (x - median) / s, s the distance of the quartiles.

    Where the quartiles coincide, s is half the range; where all values are the same, y = 0. So |y| < 3 always.

    Shape:
        center, scale: (D,).

    Reference: Holzmüller, Grinsztajn, Steinwart, "Better by default: strong pre-tuned MLPs and boosted trees on
    tabular data", NeurIPS 2024.
    """

    center: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, columns: list[Array]) -> Self:
        found = np.array([_center_and_scale(column) for column in columns], dtype=np.float64).reshape(-1, 2)
        return cls(torch.from_numpy(found[:, 0].copy()), torch.from_numpy(found[:, 1].copy()))

    def transform(self, values: Array) -> Array:
        scale = self.scale.numpy()
        with np.errstate(over="ignore"):
            z = (values - self.center.numpy()) / np.where(scale == 0, 1, scale)
        z = np.where((scale == 0) & ~np.isnan(values), 0, np.clip(z, -_HUGE, _HUGE))
        # hypot does not overflow where squares do.
        clipped: Array = z / np.hypot(1, z / 3)
        return clipped

    def to_state(self) -> dict[str, Tensor]:
        return {"center": self.center, "scale": self.scale}


@dataclass(frozen=True, eq=False)
class QuantileScale(Scale):
    """y = Φ⁻¹(F(x)): F the distribution of the training values, linear between at most 1000 quantiles.

    Tied values get the middle of their step. y lies within ±5.2, the normal scores of 10⁻⁷ and 1 - 10⁻⁷.

    Shape:
        knots: (D, K).
    """

    knots: Tensor

    @classmethod
    def fit(cls, columns: list[Array]) -> Self:
        num_knots = max(2, min(_MAX_KNOTS, max((len(column) for column in columns), default=2)))
        shares = np.linspace(0, 1, num_knots)
        knots = [_quantiles(column, shares) for column in columns]
        return cls(torch.from_numpy(np.array(knots, dtype=np.float64).reshape(len(columns), num_knots)))

    def transform(self, values: Array) -> Array:
        scores = np.empty_like(values)
        for i, knots in enumerate(self.knots.numpy() * _QUARTER):
            scores[:, i] = _share_below(values[:, i] * _QUARTER, knots)
        inner = np.clip(scores, _SMALLEST_SHARE, 1 - _SMALLEST_SHARE)
        normal: Array = torch.special.ndtri(torch.from_numpy(inner)).numpy()
        return normal

    def to_state(self) -> dict[str, Tensor]:
        return {"knots": self.knots}


SCALES: dict[str, type[RobustScale] | type[QuantileScale]] = {"robust": RobustScale, "quantile": QuantileScale}


def bin_edges(values: Array, num_bins: int) -> Tensor:
    """(num_bins + 1,) strictly increasing float32 edges: quantiles of scaled training values.

    Where quantiles coincide, the widest bins are halved until there are enough.
    """
    shares = np.linspace(0, 1, num_bins + 1)
    found = np.unique(np.quantile(values, shares).astype(np.float32)) if len(values) else np.zeros(1, np.float32)
    if found[-1] - found[0] < _MIN_SPAN:
        return torch.linspace(-0.5, 0.5, num_bins + 1) + float(found.mean())
    edges = found.tolist()
    while len(edges) < num_bins + 1:
        widest = int(np.argmax(np.diff(edges)))
        edges.insert(widest + 1, float(np.float32((edges[widest] + edges[widest + 1]) / 2)))
    return torch.tensor(edges, dtype=torch.float32)


def _center_and_scale(column: Array) -> tuple[float, float]:
    """Median and quartile distance (or half the range, or 0) of ascending values."""
    low, first, median, third, high = _quantiles(column, np.array([0, 0.25, 0.5, 0.75, 1])) * _QUARTER
    scale = third - first or (high - low) / 2
    return median / _QUARTER, min(scale, _HUGE * _QUARTER) / _QUARTER


def _quantiles(column: Array, shares: Array) -> Array:
    if len(column) == 0:
        return np.zeros(len(shares))
    # The interpolation may round to just outside its two neighbors; a running maximum keeps the order.
    found: Array = np.maximum.accumulate(np.quantile(column * _QUARTER, shares))
    return np.clip(found, column[0] * _QUARTER, column[-1] * _QUARTER) / _QUARTER


def _share_below(values: Array, knots: Array) -> Array:
    shares = np.linspace(0, 1, len(knots))
    upper = np.interp(values, knots, shares)
    # Of equal knots `interp` takes the last; mirrored, it takes the first.
    lower = 1 - np.interp(-values, -knots[::-1], shares)
    middle: Array = (upper + lower) / 2
    return middle
