"""Numbers and categories as vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from poise._errors import ConfigError
from poise._random import Key
from poise.nn._stochastic import fresh_key


class PiecewiseLinear(nn.Module):
    """z_dt = (x_d - b_dt) / (b_d,t+1 - b_dt), clamped to [0, 1] but for the outer ends of the first and last bin.

    Args:
        bins: (D, T + 1) edges b, increasing along the last axis, in the dtype of the layer.

    Shape:
        (B, D) in, (B, D · T) out.

    Raises:
        ConfigError: If the edges do not increase.

    Example:
        >>> import torch
        >>> PiecewiseLinear(torch.tensor([[0.0, 1.0, 3.0]]))(torch.tensor([[2.0]]))
        tensor([[1.0000, 0.5000]])

    Reference: Gorishniy et al., "On embeddings for numerical features in tabular deep learning", NeurIPS 2022.
    """

    start: Tensor
    slope: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, bins: Tensor) -> None:
        super().__init__()
        width = bins.diff(dim=1)
        if not bool((width > 0).all()):
            raise ConfigError("`bins` must increase along the last axis.")
        low, high = torch.zeros_like(width), torch.ones_like(width)
        low[:, 0], high[:, -1] = -math.inf, math.inf
        for name, value in (("start", bins[:, :-1]), ("slope", 1 / width), ("low", low), ("high", high)):
            self.register_buffer(name, value, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The encoded numbers."""
        encoded = (x.unsqueeze(-1) - self.start) * self.slope
        return encoded.clamp(self.low, self.high).flatten(1)


class CategoricalEmbedding(nn.Module):
    """y = (E_1[c_1], …, E_C[c_C]): a learned vector for each bucket of each category column.

    Column j has min(max_dim, ceil(cardinality / 2)) numbers, drawn from N(0, 1 / that many). The vector of bucket 0,
    which stands for unknown categories and is not seen in training, begins as zero.

    Args:
        cardinalities: Buckets of each column.
        max_dim: Largest size of a vector, ≥ 1.
        key: Names the initial vectors; None takes one from torch's global generator.

    Shape:
        (B, C) int64 in, (B, out_features) out.

    Example:
        >>> import torch
        >>> CategoricalEmbedding((4, 100), max_dim=8)(torch.zeros(3, 2, dtype=torch.int64)).shape
        torch.Size([3, 10])

    Reference: Guo and Berkhahn, "Entity embeddings of categorical variables", 2016.
    """

    def __init__(self, cardinalities: Sequence[int], *, max_dim: int = 8, key: Key | None = None) -> None:
        super().__init__()
        key = key or fresh_key()
        dims = embedding_dims(cardinalities, max_dim)
        self.out_features = sum(dims)
        self.tables = nn.ModuleList(
            nn.Embedding(size, dim, _weight=_table(key.stream(index), size, dim))
            for index, (size, dim) in enumerate(zip(cardinalities, dims, strict=True))
        )

    def forward(self, codes: Tensor) -> Tensor:
        """The vectors of all columns, side by side."""
        return torch.cat([table(codes[:, index]) for index, table in enumerate(self.tables)], dim=1)


def embedding_dims(cardinalities: Sequence[int], max_dim: int) -> list[int]:
    """Numbers in the vector of each column."""
    return [min(max_dim, -(-size // 2)) for size in cardinalities]


def _table(key: Key, size: int, dim: int) -> Tensor:
    table = key.normal(size, dim, dtype=torch.float64) / math.sqrt(dim)
    table[0] = 0
    return table.to(torch.get_default_dtype())
