"""Scaling of numbers, fitted on training rows. Everything is float64; a gap is NaN and stays one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
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
_CELLS_AT_ONCE = 1 << 22


@dataclass(frozen=True, eq=False)
class Scale(ABC):
    """Maps D columns of raw numbers to numbers of about unit size."""

    @classmethod
    @abstractmethod
    def fit(cls, values: Array) -> Self:
        """The scale of the columns of `values`, (N, D) raw numbers."""

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
    def fit(cls, values: Array) -> Self:
        found = np.empty((2, values.shape[1]))
        for places, known in known_values(values):
            found[:, places] = _center_and_scale(known)
        return cls(torch.from_numpy(found[0].copy()), torch.from_numpy(found[1].copy()))

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
    def fit(cls, values: Array) -> Self:
        most = int((~np.isnan(values)).sum(axis=0).max(initial=2))
        shares = np.linspace(0, 1, min(_MAX_KNOTS, most))
        knots = np.empty((values.shape[1], len(shares)))
        for places, known in known_values(values):
            knots[places] = _quantiles(known, shares).T
        return cls(torch.from_numpy(knots))

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
    """(D, num_bins + 1) strictly increasing float32 edges for (N, D) scaled training values: quantiles.

    Where quantiles coincide, the widest bins are halved until there are enough.
    """
    shares, edges = np.linspace(0, 1, num_bins + 1), torch.empty(values.shape[1], num_bins + 1)
    for places, known in known_values(values):
        found = _of_ascending(known, shares) if len(known) else np.zeros((1, len(places)))
        for place, column in zip(places.tolist(), found.T.astype(np.float32), strict=True):
            edges[place] = _spread(np.unique(column), num_bins)
    return edges


def known_values(values: Array) -> Iterator[tuple[NDArray[np.int64], Array]]:
    """The values that are not missing, for all columns at once that have as many of them.

    Yields:
        Numbers of columns (k,), and their known values (n, k), each column in ascending order; n may be 0.
    """
    # In blocks, so that what is sorted at once stays small beside a long table.
    width = max(1, _CELLS_AT_ONCE // max(1, len(values)))
    for start in range(0, values.shape[1], width):
        block = np.sort(values[:, start : start + width], axis=0)  # gaps come last
        counts = len(block) - np.isnan(block).sum(axis=0)
        for count in np.unique(counts).tolist():
            places = np.flatnonzero(counts == count)
            yield start + places, block[:count, places]


def _spread(found: NDArray[np.float32], num_bins: int) -> Tensor:
    """(num_bins + 1,) edges from ascending different quantiles."""
    if found[-1] - found[0] < _MIN_SPAN:
        return torch.linspace(-0.5, 0.5, num_bins + 1) + float(found.mean())
    edges = found.tolist()
    while len(edges) < num_bins + 1:
        widest = int(np.argmax(np.diff(edges)))
        edges.insert(widest + 1, float(np.float32((edges[widest] + edges[widest + 1]) / 2)))
    return torch.tensor(edges, dtype=torch.float32)


def _center_and_scale(known: Array) -> Array:
    """(2, k) median and quartile distance (or half the range, or 0) of the ascending columns of `known`."""
    low, first, median, third, high = _quantiles(known, np.array([0, 0.25, 0.5, 0.75, 1])) * _QUARTER
    scale = np.where(third == first, (high - low) / 2, third - first)
    return np.stack((median, np.minimum(scale, _HUGE * _QUARTER))) / _QUARTER


def _quantiles(known: Array, shares: Array) -> Array:
    """(number of shares, k) quantiles of the ascending columns of `known`, (n, k)."""
    if len(known) == 0:
        return np.zeros((len(shares), known.shape[1]))
    # The interpolation may round to just outside its two neighbors; a running maximum keeps the order.
    found: Array = np.maximum.accumulate(_of_ascending(known * _QUARTER, shares), axis=0)
    return np.clip(found, known[0] * _QUARTER, known[-1] * _QUARTER) / _QUARTER


def _of_ascending(known: Array, shares: Array) -> Array:
    """What `np.quantile` finds, bit for bit; it would partition columns that are in order, which takes longer."""
    places = shares * (len(known) - 1)
    below = np.floor(places).astype(np.int64)
    low, high = known[below], known[np.minimum(below + 1, len(known) - 1)]
    part, gap = (places - below)[:, None], high - low
    found: Array = np.where(part < 0.5, low + gap * part, high - gap * (1 - part))
    return found


def _share_below(values: Array, knots: Array) -> Array:
    shares = np.linspace(0, 1, len(knots))
    upper = np.interp(values, knots, shares)
    # Of equal knots `interp` takes the last; mirrored, it takes the first.
    lower = 1 - np.interp(-values, -knots[::-1], shares)
    middle: Array = (upper + lower) / 2
    return middle
