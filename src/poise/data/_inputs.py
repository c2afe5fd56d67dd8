"""What a tabular network reads."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Inputs(NamedTuple):
    """Encoded rows.

    Shape:
        numeric: (B, D) float: scaled numbers first, then indicators of missing values and other 0/1 columns.
        categorical: (B, C) int64: bucket of each category; 0 is unknown, 1 is rare.
    """

    numeric: Tensor
    categorical: Tensor

    @property
    def num_rows(self) -> int:
        """B."""
        return self.numeric.shape[0]

    def take(self, rows: Tensor) -> Inputs:
        """The rows `rows` (int64 indices)."""
        return Inputs(self.numeric[rows], self.categorical[rows])
