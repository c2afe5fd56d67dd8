"""A network that reads encoded tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from poise._random import Key
from poise.data import Inputs
from poise.nn._embedding import CategoricalEmbedding, PiecewiseLinear, embedding_dims
from poise.nn._mlp import MLP, Layers, Structure, no_layers
from poise.nn._periodic import PeriodicEmbedding
from poise.nn._stochastic import fresh_key

Average = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class TabularShape:
    """What an encoded table looks like.

    Args:
        num_continuous: Scaled numbers, the first columns of `Inputs.numeric`.
        num_numeric: All columns of `Inputs.numeric`.
        cardinalities: Buckets of each category column.
        bins: (num_continuous, T + 1) edges of a piecewise-linear encoding, or None.
        embedding_dim: Largest size of a category's vector, ≥ 1.
        num_frequencies: Of the waves of each scaled number, ≥ 0; 0 for no waves.
        frequency_scale: Standard deviation of the first frequencies, ≥ 0.
        periodic_dim: What the waves of a number become, ≥ 1.

    Example:
        >>> TabularShape(num_continuous=2, num_numeric=3, cardinalities=(4,)).cardinalities
        (4,)
    """

    num_continuous: int
    num_numeric: int
    cardinalities: tuple[int, ...] = ()
    bins: Tensor | None = None
    embedding_dim: int = 8
    num_frequencies: int = 0
    frequency_scale: float = 0.5
    periodic_dim: int = 3

    @property
    def in_features(self) -> int:
        """What the MLP reads."""
        bins = 1 if self.bins is None else self.bins.shape[1] - 1
        waves = self.periodic_dim if self.num_frequencies else 0
        others = self.num_numeric - self.num_continuous + sum(embedding_dims(self.cardinalities, self.embedding_dim))
        return self.num_continuous * (bins + waves) + others


class TabularNetwork(nn.Module):
    """Encodes numbers, makes waves of them, embeds categories, and lets an MLP read all.

    Args:
        shape: Of the encoded table.
        out_features: C, ≥ 1.
        structure: Of the MLP.
        layers: Supplies the regularizing layers.
        average: Makes outputs (B, C) of those of all members (B, K, C), in eval mode.
        key: Names the initial weights; None takes one from torch's global generator.

    Shape:
        Inputs of B rows in, (B, C) out; (B, K, C) for K > 1 members without `average`, and in training.

    Example:
        >>> network = TabularNetwork(TabularShape(2, 3, (4,)), 1, structure=Structure(width=8))
        >>> network(Inputs(torch.zeros(5, 3), torch.zeros(5, 1, dtype=torch.int64))).shape
        torch.Size([5, 1])
    """

    def __init__(
        self,
        shape: TabularShape,
        out_features: int,
        *,
        structure: Structure | None = None,
        layers: Layers = no_layers,
        average: Average | None = None,
        key: Key | None = None,
    ) -> None:
        super().__init__()
        key = key or fresh_key()
        self.average = average
        self.num_continuous = shape.num_continuous
        self.numbers = None if shape.bins is None else PiecewiseLinear(shape.bins)
        self.periodic = _waves(shape, key.stream("periodic"))
        embed = bool(shape.cardinalities)
        self.categories = (
            CategoricalEmbedding(shape.cardinalities, max_dim=shape.embedding_dim, key=key.stream("categories"))
            if embed
            else None
        )
        self.mlp = MLP(shape.in_features, out_features, structure=structure, layers=layers, key=key.stream("mlp"))

    def forward(self, inputs: Inputs) -> Tensor:
        """The outputs of the MLP."""
        parts = [inputs.numeric]
        numbers, others = inputs.numeric.tensor_split([self.num_continuous], dim=1)
        if self.numbers is not None:
            parts = [self.numbers(numbers), others]
        if self.periodic is not None:
            parts.append(self.periodic(numbers))
        if self.categories is not None:
            parts.append(self.categories(inputs.categorical))
        outputs: Tensor = self.mlp(torch.cat(parts, dim=1) if len(parts) > 1 else parts[0])
        return outputs if outputs.ndim < 3 or self.training or self.average is None else self.average(outputs)


def _waves(shape: TabularShape, key: Key) -> PeriodicEmbedding | None:
    if not (shape.num_frequencies and shape.num_continuous):
        return None
    return PeriodicEmbedding(
        shape.num_continuous, num_frequencies=shape.num_frequencies, out_features=shape.periodic_dim,
        scale=shape.frequency_scale, key=key,
    )  # fmt: skip
