"""Sums over rows and maps of columns, a vector of columns at a time, with everything else in registers.

A compiler would go row by row, load and store each sum again for every row, and check anew for every row whether arrays
overlap. For a batch of 64 rows and 64 columns that is most of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types as _types
from numba.extending import intrinsic

from poise.kernels.cpu._jit import VECTOR_BYTES, inner
from poise.kernels.cpu._vector import Lanes, pointer

types: Any = _types
_I64 = ir.IntType(64)
_WAYS = 4  # rows a turn, each with its own sums, so that additions do not wait for each other


def _for_rows(
    builder: ir.IRBuilder,
    rows: ir.Value,
    carried: list[ir.Value],
    body: Callable[[ir.Value, list[ir.Value]], list[Any]],
) -> list[ir.Value]:
    """Run `body(row, carried)` for all rows; it returns the new carried values."""
    before = builder.block
    loop, after = builder.append_basic_block("rows"), builder.append_basic_block("after")
    builder.cbranch(builder.icmp_signed("<", _I64(0), rows), loop, after)
    builder.position_at_end(loop)
    row = builder.phi(_I64)
    now = [builder.phi(one.type) for one in carried]
    then = body(row, now)
    following = builder.add(row, _I64(1))
    end = builder.block
    row.add_incoming(_I64(0), before)
    row.add_incoming(following, end)
    for phi, start, grown in zip(now, carried, then, strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(grown, end)
    builder.cbranch(builder.icmp_signed("<", following, rows), loop, after)
    builder.position_at_end(after)
    results = []
    for start, grown in zip(carried, then, strict=True):
        result = builder.phi(start.type)
        result.add_incoming(start, before)
        result.add_incoming(grown, end)
        results.append(result)
    return results


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

    parts = _for_rows(builder, groups, [lanes.zero] * (count * _WAYS), group)
    done = builder.mul(groups, _I64(_WAYS))

    def single(index: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        found = terms(builder.add(done, index))
        return [builder.fadd(total, term) for total, term in zip(sums, found, strict=True)]

    rest = _for_rows(builder, builder.sub(rows, done), [lanes.zero] * count, single)
    totals = []
    for i, last in enumerate(rest):
        left = builder.fadd(parts[i], parts[count + i])
        right = builder.fadd(parts[2 * count + i], parts[3 * count + i])
        totals.append(builder.fadd(builder.fadd(left, right), last))
    return totals


def _block(generate: Callable[..., None], num_pointers: int, num_numbers: int, *, masked: bool) -> Any:
    """An instruction on one vector of columns: (pointers, numbers, rows, row distance, live columns)."""

    def write(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> Any:
        *given, rows, distance, live = arguments
        element = context.get_value_type(signature.args[0].dtype)
        lanes = Lanes(builder, element, live if masked else None)
        spread = [lanes.spread(one) for one in given[num_pointers:]]
        generate(builder, lanes, given[:num_pointers], spread, rows, distance)
        return context.get_dummy_value()

    # Numba reads the number of arguments off the signature, so one definition for each number is needed.
    if (num_pointers, num_numbers) == (3, 1):

        @intrinsic
        def four(_typing, x, a, b, n, rows, distance, live):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
            return types.void(x, a, b, n, rows, distance, live), write

        return four

    if (num_pointers, num_numbers) == (4, 0):

        @intrinsic
        def maps(_typing, x, a, b, y, rows, distance, live):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
            return types.void(x, a, b, y, rows, distance, live), write

        return maps

    @intrinsic
    def gradients(_typing, x, g, mean, rstd, weight, dw, db, n, rows, distance, live):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        return types.void(x, g, mean, rstd, weight, dw, db, n, rows, distance, live), write

    return gradients


def _moments(
    builder: ir.IRBuilder,
    lanes: Lanes,
    pointers: list[ir.Value],
    numbers: list[ir.Value],
    rows: ir.Value,
    row: ir.Value,
) -> None:
    x, mean_at, var_at = pointers
    share = numbers[0]

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


def _scale(
    builder: ir.IRBuilder,
    lanes: Lanes,
    pointers: list[ir.Value],
    numbers: list[ir.Value],
    rows: ir.Value,
    row: ir.Value,
) -> None:
    x, slope_at, shift_at, y = pointers
    slope, shift = lanes.load(slope_at, _I64(0)), lanes.load(shift_at, _I64(0))

    def body(index: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        at = builder.mul(index, row)
        lanes.store(lanes.multiply_add(lanes.load(x, at), slope, shift), y, at)
        return []

    _for_rows(builder, rows, [], body)


def _norm_backward(
    builder: ir.IRBuilder,
    lanes: Lanes,
    pointers: list[ir.Value],
    numbers: list[ir.Value],
    rows: ir.Value,
    row: ir.Value,
) -> None:
    x, g, *vectors = pointers
    mean, rstd, weight = (lanes.load(one, _I64(0)) for one in vectors[:3])
    weight_grad, bias_grad = vectors[3:]
    share = numbers[0]

    def terms(index: ir.Value) -> list[ir.Value]:
        at = builder.mul(index, row)
        grad = lanes.load(g, at)
        return [grad, builder.fmul(grad, builder.fsub(lanes.load(x, at), mean))]

    total, moment = _sum_rows(builder, lanes, rows, terms, 2)
    lanes.store(builder.fadd(lanes.load(bias_grad, _I64(0)), total), bias_grad, _I64(0))
    lanes.store(lanes.multiply_add(moment, rstd, lanes.load(weight_grad, _I64(0))), weight_grad, _I64(0))
    slope = builder.fmul(rstd, weight)
    pull = builder.fneg(builder.fmul(builder.fmul(slope, builder.fmul(rstd, rstd)), builder.fmul(moment, share)))
    center = builder.fmul(total, share)

    def body(index: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        at = builder.mul(index, row)
        direct = builder.fmul(builder.fsub(lanes.load(g, at), center), slope)
        lanes.store(lanes.multiply_add(builder.fsub(lanes.load(x, at), mean), pull, direct), g, at)
        return []

    _for_rows(builder, rows, [], body)


_MOMENTS, _MOMENTS_EDGE = (_block(_moments, 3, 1, masked=masked) for masked in (False, True))
_SCALE, _SCALE_EDGE = (_block(_scale, 4, 0, masked=masked) for masked in (False, True))
_BACKWARD, _BACKWARD_EDGE = (_block(_norm_backward, 7, 1, masked=masked) for masked in (False, True))


@inner
def column_moments(x: Any, first: int, last: int, mean: Any, var: Any) -> None:
    """Mean and biased variance of each column over the rows first … last - 1, in two passes against cancellation."""
    columns, lanes, share = x.shape[1], VECTOR_BYTES // x.itemsize, x.dtype.type(1.0 / (last - first))
    flat, rows = x.reshape(x.size), last - first
    for j in range(0, columns, lanes):
        at, live = pointer(flat, first * columns + j), min(lanes, columns - j)
        if live == lanes:
            _MOMENTS(at, pointer(mean, j), pointer(var, j), share, rows, columns, live)
        else:
            _MOMENTS_EDGE(at, pointer(mean, j), pointer(var, j), share, rows, columns, live)


@inner
def affine_columns(x: Any, first: int, last: int, slope: Any, shift: Any, out: Any) -> None:
    """out = x · slope + shift, by columns, for the rows first … last - 1."""
    columns, lanes = x.shape[1], VECTOR_BYTES // x.itemsize
    flat, flat_out, rows = x.reshape(x.size), out.reshape(out.size), last - first
    for j in range(0, columns, lanes):
        start, live = first * columns + j, min(lanes, columns - j)
        at, to = pointer(flat, start), pointer(flat_out, start)
        if live == lanes:
            _SCALE(at, pointer(slope, j), pointer(shift, j), to, rows, columns, live)
        else:
            _SCALE_EDGE(at, pointer(slope, j), pointer(shift, j), to, rows, columns, live)


@inner
def batch_norm_backward(
    x: Any, g: Any, first: int, last: int, mean: Any, rstd: Any, weight: Any, weight_grad: Any, bias_grad: Any
) -> None:
    """g ← gradient of x for the rows first … last - 1, which share moments; adds to those of weight and bias."""
    columns, lanes, share = x.shape[1], VECTOR_BYTES // x.itemsize, x.dtype.type(1.0 / (last - first))
    flat, flat_g, rows = x.reshape(x.size), g.reshape(g.size), last - first
    for j in range(0, columns, lanes):
        start, live = first * columns + j, min(lanes, columns - j)
        at, grad = pointer(flat, start), pointer(flat_g, start)
        m, s, w = pointer(mean, j), pointer(rstd, j), pointer(weight, j)
        dw, db = pointer(weight_grad, j), pointer(bias_grad, j)
        if live == lanes:
            _BACKWARD(at, grad, m, s, w, dw, db, share, rows, columns, live)
        else:
            _BACKWARD_EDGE(at, grad, m, s, w, dw, db, share, rows, columns, live)
