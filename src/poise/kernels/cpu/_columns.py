"""Sums over rows and maps of columns, a vector of columns at a time, with everything else in registers.

A compiler would go row by row, load and store each sum again for every row, and check anew for every row whether arrays
overlap. For a batch of 64 rows and 64 columns that is most of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types as _types
from numba.core import cgutils as _cgutils
from numba.extending import intrinsic

from poise.kernels.cpu._jit import VECTOR_BYTES, inner
from poise.kernels.cpu._vector import Lanes, for_each, pointer

cgutils: Any = _cgutils
types: Any = _types  # neither has annotations
_I64 = ir.IntType(64)
_WAYS = 4  # rows a turn, each with its own sums, so that additions do not wait for each other


def _sum_rows(
    builder: ir.IRBuilder, lanes: Lanes, rows: ir.Value, terms: Callable[[ir.Value], list[ir.Value]], count: int
) -> list[ir.Value]:
    """Σ over rows of `count` terms: groups of rows with sums of their own, then the rest."""
    groups = builder.sdiv(rows, _I64(_WAYS))

    def group(index: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        first, grown = builder.mul(index, _I64(_WAYS)), []
        for way in range(_WAYS):
            found = terms(builder.add(first, _I64(way)))
            grown += [builder.fadd(sums[way * count + i], term) for i, term in enumerate(found)]
        return grown

    parts = for_each(builder, groups, [lanes.zero] * (count * _WAYS), group)
    done = builder.mul(groups, _I64(_WAYS))

    def single(index: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        found = terms(builder.add(done, index))
        return [builder.fadd(total, term) for total, term in zip(sums, found, strict=True)]

    rest = for_each(builder, builder.sub(rows, done), [lanes.zero] * count, single)
    totals = []
    for i, last in enumerate(rest):
        left = builder.fadd(parts[i], parts[count + i])
        right = builder.fadd(parts[2 * count + i], parts[3 * count + i])
        totals.append(builder.fadd(builder.fadd(left, right), last))
    return totals


def _block(generate: Callable[..., None], *, masked: bool) -> Any:
    """An instruction on one vector of columns: (pointers, number, rows, row distance, live columns)."""

    def block(_typing: Any, pointers: Any, number: Any, rows: Any, distance: Any, live: Any) -> Any:
        def write(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> Any:
            given, number, rows, distance, live = arguments
            element = context.get_value_type(signature.args[1])
            lanes = Lanes(builder, element, live if masked else None)
            generate(builder, lanes, cgutils.unpack_tuple(builder, given), lanes.spread(number), rows, distance)
            return context.get_dummy_value()

        return types.void(pointers, number, rows, distance, live), write

    return intrinsic(block)


def _moments(
    builder: ir.IRBuilder,
    lanes: Lanes,
    pointers: list[ir.Value],
    share: ir.Value,
    rows: ir.Value,
    row: ir.Value,
) -> None:
    x, mean_at, var_at = pointers

    def value(index: ir.Value) -> ir.Value:
        return lanes.load(x, builder.mul(index, row))

    (total,) = _sum_rows(builder, lanes, rows, lambda index: [value(index)], 1)
    mean = builder.fmul(total, share)

    def terms(index: ir.Value) -> list[ir.Value]:
        centered = builder.fsub(value(index), mean)
        return [centered, builder.fmul(centered, centered)]

    # What rounding left of the mean shows in the second pass, and is added to it.
    left, total = _sum_rows(builder, lanes, rows, terms, 2)
    left = builder.fmul(left, share)
    lanes.store(builder.fadd(mean, left), mean_at, _I64(0))
    lanes.store(builder.fsub(builder.fmul(total, share), builder.fmul(left, left)), var_at, _I64(0))


def _relu(builder: ir.IRBuilder, lanes: Lanes, u: ir.Value, value: ir.Value) -> ir.Value:
    """`value` where u > 0 or u is not a number, else 0."""
    return builder.select(builder.fcmp_ordered("<=", u, lanes.zero), lanes.zero, value)


def _make_scale(*, relu: bool, drop: bool) -> Callable[..., None]:
    def scale(
        builder: ir.IRBuilder, lanes: Lanes, pointers: list[ir.Value], _: ir.Value, rows: ir.Value, row: ir.Value
    ) -> None:
        x, y, mask, slope_at, shift_at = pointers
        slope, shift = lanes.load(slope_at, _I64(0)), lanes.load(shift_at, _I64(0))

        def body(index: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            at = builder.mul(index, row)
            value = lanes.multiply_add(lanes.load(x, at), slope, shift)
            if relu:
                value = _relu(builder, lanes, value, value)
            if drop:
                value = builder.fmul(value, lanes.load(mask, at))
            lanes.store(value, y, at)
            return []

        for_each(builder, rows, [], body)

    return scale


def _make_backward(*, relu: bool, drop: bool) -> Callable[..., None]:
    def backward(
        builder: ir.IRBuilder, lanes: Lanes, pointers: list[ir.Value], share: ir.Value, rows: ir.Value, row: ir.Value
    ) -> None:
        x, g, mask, mean_at, rstd_at, weight_at, weight_grad, bias_grad, slope_at, shift_at = pointers
        mean, rstd, weight = (lanes.load(one, _I64(0)) for one in (mean_at, rstd_at, weight_at))
        slope, shift = lanes.load(slope_at, _I64(0)), lanes.load(shift_at, _I64(0))

        def terms(index: ir.Value) -> list[ir.Value]:
            at = builder.mul(index, row)
            value, grad = lanes.load(x, at), lanes.load(g, at)
            if drop:
                grad = builder.fmul(grad, lanes.load(mask, at))
            if relu:
                grad = _relu(builder, lanes, lanes.multiply_add(value, slope, shift), grad)
            if relu or drop:
                lanes.store(grad, g, at)
            return [grad, builder.fmul(grad, builder.fsub(value, mean))]

        total, moment = _sum_rows(builder, lanes, rows, terms, 2)
        lanes.store(builder.fadd(lanes.load(bias_grad, _I64(0)), total), bias_grad, _I64(0))
        lanes.store(lanes.multiply_add(moment, rstd, lanes.load(weight_grad, _I64(0))), weight_grad, _I64(0))
        direct = builder.fmul(rstd, weight)
        pull = builder.fneg(builder.fmul(builder.fmul(direct, builder.fmul(rstd, rstd)), builder.fmul(moment, share)))
        center = builder.fmul(total, share)

        def body(index: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            at = builder.mul(index, row)
            own = builder.fmul(builder.fsub(lanes.load(g, at), center), direct)
            lanes.store(lanes.multiply_add(builder.fsub(lanes.load(x, at), mean), pull, own), g, at)
            return []

        for_each(builder, rows, [], body)

    return backward


_MOMENTS, _MOMENTS_EDGE = (_block(_moments, masked=masked) for masked in (False, True))


@inner
def column_moments(x: Any, first: int, last: int, mean: Any, var: Any) -> None:
    """Mean and biased variance of each column over the rows first … last - 1, in two passes against cancellation."""
    columns, lanes, share = x.shape[1], VECTOR_BYTES // x.itemsize, x.dtype.type(1.0 / (last - first))
    rows = last - first
    for j in range(0, columns, lanes):
        pointers = (pointer(x, first * columns + j), pointer(mean, j), pointer(var, j))
        live = min(lanes, columns - j)
        if live == lanes:
            _MOMENTS(pointers, share, rows, columns, live)
        else:
            _MOMENTS_EDGE(pointers, share, rows, columns, live)


def _make_scale_columns(*, relu: bool, drop: bool) -> Any:
    whole, edge = (_block(_make_scale(relu=relu, drop=drop), masked=masked) for masked in (False, True))

    def scale_columns(x: Any, y: Any, first: int, last: int, slope: Any, shift: Any, mask: Any) -> None:
        """y = m · max(x · slope + shift, 0), by columns, for the rows first … last - 1; m or max may be left out."""
        columns, lanes, rows, unused = x.shape[1], VECTOR_BYTES // x.itemsize, last - first, x.dtype.type(0)
        for j in range(0, columns, lanes):
            start, live = first * columns + j, min(lanes, columns - j)
            vectors = (pointer(slope, j), pointer(shift, j))
            matrices = (pointer(x, start), pointer(y, start), pointer(mask, start if drop else 0))
            pointers = matrices + vectors
            if live == lanes:
                whole(pointers, unused, rows, columns, live)
            else:
                edge(pointers, unused, rows, columns, live)

    return inner(scale_columns)


def _make_batch_norm_backward(*, relu: bool, drop: bool) -> Any:
    whole, edge = (_block(_make_backward(relu=relu, drop=drop), masked=masked) for masked in (False, True))

    def batch_norm_backward(
        x: Any, g: Any, first: int, last: int, mean: Any, rstd: Any, weight: Any, weight_grad: Any, bias_grad: Any,
        slope: Any, shift: Any, mask: Any,
    ) -> None:  # fmt: skip
        """g ← gradient of x for the rows first … last - 1, which share moments; adds to those of weight and bias."""
        columns, lanes, share = x.shape[1], VECTOR_BYTES // x.itemsize, x.dtype.type(1.0 / (last - first))
        rows = last - first
        for j in range(0, columns, lanes):
            start, live = first * columns + j, min(lanes, columns - j)
            vectors = (pointer(mean, j), pointer(rstd, j), pointer(weight, j), pointer(weight_grad, j))
            affine = (pointer(bias_grad, j), pointer(slope, j), pointer(shift, j))
            matrices = (pointer(x, start), pointer(g, start), pointer(mask, start if drop else 0))
            pointers = matrices + vectors + affine
            if live == lanes:
                whole(pointers, share, rows, columns, live)
            else:
                edge(pointers, share, rows, columns, live)

    return inner(batch_norm_backward)


affine_columns = _make_scale_columns(relu=False, drop=False)
affine_relu_columns = _make_scale_columns(relu=True, drop=False)
affine_relu_dropout_columns = _make_scale_columns(relu=True, drop=True)
batch_norm_backward = _make_batch_norm_backward(relu=False, drop=False)
batch_norm_relu_backward = _make_batch_norm_backward(relu=True, drop=False)
batch_norm_relu_dropout_backward = _make_batch_norm_backward(relu=True, drop=True)
