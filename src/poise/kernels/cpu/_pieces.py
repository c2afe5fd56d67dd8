"""Matrix products with piecewise-linear encoded numbers, without writing the encoding down.

Of the T encoded numbers of z in bin k, those before k are 1, those behind are 0, and number k is the share of the bin
that lies below z. So the encoding times a matrix W is W_0 + … + W_k-1 + share · W_k: two rows of a table for each
number, whatever T is. The other way round, the gradient of W_t is the sum of g over the numbers beyond bin t, and of
share · g over those in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types as _types

from poise.kernels.cpu._jit import VECTOR_BYTES, inner, instruction
from poise.kernels.cpu._vector import Lanes, for_each, pointer
from poise.kernels.cpu._view import part

types: Any = _types  # has no annotations
_I64 = ir.IntType(64)
_VECTORS = 4  # of columns at a time: with two sums for each, they stay in registers


@inner
def find_pieces(numeric: Any, columns: int, rows: int, start: Any, slope: Any, pieces: Any, shares: Any) -> None:
    """The row of the table, and the share of the bin, of each of the first D numbers of each row.

    Args:
        numeric: Flat (rows, columns), columns ≥ D.
        columns: See `numeric`.
        rows: See `numeric`.
        start: (D, T) left edges of the bins.
        slope: (D, T) 1 / their widths.
        pieces: Receives int64 (rows, D), bin d · T + k.
        shares: Receives (rows, D); below 0 or above 1 beyond the outer edges.
    """
    features, bins = start.shape
    for i in range(rows):
        for d in range(features):
            z, k = numeric[i * columns + d], 0
            for t in range(1, bins):
                k += z >= start[d, t]
            pieces[i * features + d] = d * bins + k
            shares[i * features + d] = (z - start[d, k]) * slope[d, k]


@inner
def tabulate(table: Any, features: int, bins: int, width: int) -> None:
    """Of each pair of rows of the flat table, write the first: the sum of the second ones of all bins before."""
    for d in range(features):
        below = part(table, 2 * d * bins * width, width)
        for j in range(width):
            below[j] = 0
        for t in range(1, bins):
            before = part(table, 2 * (d * bins + t - 1) * width, 2 * width)
            below = part(table, 2 * (d * bins + t) * width, width)
            for j in range(width):
                below[j] = before[j] + before[width + j]


def _add(vectors: int, *, masked: bool) -> Any:
    """y[v] += Σ_d table[pieces[d], 0, v] + shares[d] · table[pieces[d], 1, v] for some columns v of one row."""

    @instruction
    def add(_typing: Any, table: Any, pieces: Any, shares: Any, y: Any, features: Any, width: Any, live: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> Any:
            table, pieces, shares, y, features, width, live = arguments
            lanes = Lanes(builder, context.get_value_type(signature.args[3].dtype), live if masked else None)
            places = [_I64(v * lanes.count) for v in range(vectors)]

            def grow(d: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                at = builder.mul(builder.load(builder.gep(pieces, [d])), builder.mul(width, _I64(2)))
                beside = builder.add(at, width)
                share, grown = lanes.spread(builder.load(builder.gep(shares, [d]))), []
                for total, place in zip(sums, places, strict=True):
                    below, own = (lanes.load(table, builder.add(one, place)) for one in (at, beside))
                    grown.append(builder.fadd(total, lanes.multiply_add(share, own, below)))
                return grown

            sums = for_each(builder, features, [lanes.load(y, place) for place in places], grow)
            for total, place in zip(sums, places, strict=True):
                lanes.store(total, y, place)
            return context.get_dummy_value()

        whole = types.intp
        return types.void(table, pieces, shares, y, whole, whole, whole), generate

    return add


def _collect(vectors: int, *, masked: bool) -> Any:
    """out[v] = beyond[v] + Σ share · g[row, v], then beyond[v] += Σ g[row, v], over the rows order[first:last]."""

    @instruction
    def collect(
        _typing: Any, g: Any, order: Any, shares: Any, beyond: Any, out: Any, first: Any, last: Any, features: Any,
        width: Any, live: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> Any:
            g, order, shares, beyond, out, first, last, features, width, live = arguments
            lanes = Lanes(builder, context.get_value_type(signature.args[0].dtype), live if masked else None)
            places = [_I64(v * lanes.count) for v in range(vectors)]
            before = [lanes.load(beyond, place) for place in places]

            def grow(i: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                row = builder.load(builder.gep(order, [builder.add(first, i)]))
                share = lanes.spread(builder.load(builder.gep(shares, [builder.mul(row, features)])))
                at, inside, whole = builder.mul(row, width), [], []
                for v, place in enumerate(places):
                    value = lanes.load(g, builder.add(at, place))
                    inside.append(lanes.multiply_add(share, value, sums[v]))
                    whole.append(builder.fadd(sums[vectors + v], value))
                return inside + whole

            sums = for_each(builder, builder.sub(last, first), [lanes.zero for _ in places] + before, grow)
            for v, place in enumerate(places):
                lanes.store(builder.fadd(sums[v], before[v]), out, place)
                lanes.store(sums[vectors + v], beyond, place)
            return context.get_dummy_value()

        whole = types.intp
        return types.void(g, order, shares, beyond, out, *[whole] * 5), generate

    return collect


_ADD, _ADD_EDGE = _add(_VECTORS, masked=False), _add(1, masked=True)
_COLLECT, _COLLECT_EDGE = _collect(_VECTORS, masked=False), _collect(1, masked=True)


@inner
def add_pieces(table: Any, pieces: Any, shares: Any, rows: int, features: int, width: int, y: Any) -> None:
    """y (rows, width) += the encoded numbers times W, of which `table` is what `tabulate` makes; all are flat."""
    lanes = VECTOR_BYTES // y.itemsize
    j = 0
    while j < width:
        wide = width - j >= _VECTORS * lanes
        live = min(lanes, width - j)
        for i in range(rows):
            own, share = pointer(pieces, i * features), pointer(shares, i * features)
            if wide:
                _ADD(pointer(table, j), own, share, pointer(y, i * width + j), features, width, live)
            else:
                _ADD_EDGE(pointer(table, j), own, share, pointer(y, i * width + j), features, width, live)
        j += _VECTORS * lanes if wide else lanes


@inner
def pieces_backward(
    g: Any, pieces: Any, shares: Any, rows: int, features: int, bins: int, width: int, order: Any, spare: Any, out: Any
) -> None:
    """out (D · T, width) = the gradient of Wᵀ, given that of y; `order` has room for rows, `spare` for a row of y."""
    lanes, ends = VECTOR_BYTES // g.itemsize, np.zeros(bins + 1, np.int64)
    for d in range(features):
        _sort(pieces, d, rows, features, bins, ends, order)
        j = 0
        while j < width:
            wide = width - j >= _VECTORS * lanes
            live, own = min(lanes, width - j), pointer(shares, d)
            for k in range(width - j):
                spare[k] = 0
            for k in range(bins - 1, -1, -1):
                first, last = (ends[k - 1] if k > 0 else 0), ends[k]
                target = pointer(out, (d * bins + k) * width + j)
                if wide:
                    _COLLECT(
                        pointer(g, j), pointer(order, 0), own, pointer(spare, 0), target, first, last, features, width,
                        live,
                    )  # fmt: skip
                else:
                    _COLLECT_EDGE(
                        pointer(g, j), pointer(order, 0), own, pointer(spare, 0), target, first, last, features, width,
                        live,
                    )  # fmt: skip
            j += _VECTORS * lanes if wide else lanes


@inner
def _sort(pieces: Any, feature: int, rows: int, features: int, bins: int, ends: Any, order: Any) -> None:
    """`order` = the rows by their bin of a feature, those of bin k up to ends[k]."""
    ends[:] = 0
    for i in range(rows):
        ends[pieces[i * features + feature] - feature * bins + 1] += 1
    for k in range(1, bins + 1):
        ends[k] += ends[k - 1]
    for i in range(rows):
        k = pieces[i * features + feature] - feature * bins
        order[ends[k]] = i
        ends[k] += 1
