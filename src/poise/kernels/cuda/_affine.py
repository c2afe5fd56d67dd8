"""The linear part of a chain, for a tile of the mask or a rectangle: shapes of rows and columns are broadcast."""

from __future__ import annotations

import triton.language as tl
from triton.language import constexpr, tensor

from poise.kernels.cuda._jit import TILE, TILE_BLOCKS, kernel


@kernel
def normalize(
    value: tensor, mean: tensor, rstd: tensor, v: tensor, row: tensor, column: tensor, rows: tensor, columns: tensor,
    norm: constexpr,
) -> tensor:  # fmt: skip
    """(value - mean) · rstd, and rstd."""
    if norm == "none":
        scale = tl.full(value.shape, 1.0, value.dtype)
        unit = value
    else:
        at = v * columns + column if norm == "batch" else v * rows + row
        scale = tl.load(rstd + at)
        unit = (value - tl.load(mean + at)) * scale
    return unit, scale


@kernel
def parameter(values: tensor, v: tensor, column: tensor, columns: tensor, otherwise: constexpr, like: tensor) -> tensor:
    """The columns' values of variant v; `otherwise` where there are none."""
    return tl.full(column.shape, otherwise, like.dtype) if values is None else tl.load(values + v * columns + column)


@kernel
def locate(
    lane: tensor, depth: tensor, size: tensor, tile: tensor, rows: tensor, columns: tensor, whole: constexpr
) -> tensor:  # fmt: skip
    """Where the elements of a lane of a tile are: within the tile, whether there are any, their rows and columns."""
    index = tl.arange(0, TILE_BLOCKS)
    place, valid = lane * depth + index, index < depth
    if not whole:
        valid &= place < size
    row = tile * TILE // columns
    along = (tile * TILE - row * columns).to(tl.int32) + place
    # Places that are not valid may lie in no row.
    return place, valid, tl.minimum(row + along // columns, rows - 1), along % columns
