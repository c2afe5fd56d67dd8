"""Sums over rows and maps of columns, a few vectors of columns at a time, with everything else in registers.

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

from poise.kernels.cpu._jit import inner
from poise.kernels.cpu._vector import Lanes, for_each, pointer

cgutils: Any = _cgutils
types: Any = _types  # neither has annotations
_I64 = ir.IntType(64)
# Lines of one column lie a power of 2 apart and crowd each other out of the cache, so several are done side by side.
_VECTORS = 4
_WAYS = 4  # sums of each column, where a single vector of columns is left: additions do not wait for each other
_WAYS_SIDE_BY_SIDE = 2

_Values = list[ir.Value]


def _each(operation: Callable[..., ir.Value], *operands: _Values) -> _Values:
    """`operation` on the first of each, on the second of each, and so on."""
    return [operation(*some) for some in zip(*operands, strict=True)]


class _Block:
    """Some vectors of columns side by side; of a single one, perhaps only the first `live` columns."""

    def __init__(self, builder: ir.IRBuilder, element: ir.Type, vectors: int, live: ir.Value | None) -> None:
        self.builder, self.vectors, self.lanes = builder, vectors, Lanes(builder, element, live)
        self.ways = _WAYS if vectors == 1 else _WAYS_SIDE_BY_SIDE

    def _places(self, offset: ir.Value) -> _Values:
        return [self.builder.add(offset, _I64(index * self.lanes.count)) for index in range(self.vectors)]

    def load(self, base: ir.Value, offset: ir.Value) -> _Values:
        return [self.lanes.load(base, place) for place in self._places(offset)]

    def store(self, values: _Values, base: ir.Value, offset: ir.Value) -> None:
        for value, place in zip(values, self._places(offset), strict=True):
            self.lanes.store(value, base, place)

    def relu(self, u: ir.Value, value: ir.Value) -> ir.Value:
        """`value` where u > 0 or u is not a number, else 0."""
        return self.builder.select(self.builder.fcmp_ordered("<=", u, self.lanes.zero), self.lanes.zero, value)

    def sum_rows(self, rows: ir.Value, terms: Callable[[ir.Value], _Values], count: int) -> _Values:
        """Σ over rows of `count` terms for each vector: groups of rows with sums of their own, then the rest."""
        builder, number, zero = self.builder, count * self.vectors, self.lanes.zero
        groups = builder.sdiv(rows, _I64(self.ways))

        def group(index: ir.Value, sums: _Values) -> _Values:
            first = builder.mul(index, _I64(self.ways))
            found = [term for way in range(self.ways) for term in terms(builder.add(first, _I64(way)))]
            return _each(builder.fadd, sums, found)

        parts = for_each(builder, groups, [zero] * (number * self.ways), group)
        done = builder.mul(groups, _I64(self.ways))

        def single(index: ir.Value, sums: _Values) -> _Values:
            return _each(builder.fadd, sums, terms(builder.add(done, index)))

        totals = for_each(builder, builder.sub(rows, done), [zero] * number, single)
        for start in range(0, len(parts), number):
            totals = _each(builder.fadd, totals, parts[start : start + number])
        return totals


def _over_columns(generate: Callable[..., None]) -> Any:
    """An instruction that does `generate` for all columns: (pointers, number, rows, columns).

    The pointers are to the first column, of matrices with that many columns or of vectors.
    """

    def instruct(_typing: Any, pointers: Any, number: Any, rows: Any, columns: Any) -> Any:
        def write(context: Any, builder: ir.IRBuilder, signature: Any, arguments: _Values) -> Any:
            given, number, rows, columns = arguments
            lanes = Lanes(builder, context.get_value_type(signature.args[1]))
            bases = cgutils.unpack_tuple(builder, given)
            share, width = lanes.spread(number), lanes.count

            def blocks(vectors: int, first: ir.Value, count: ir.Value, live: ir.Value | None = None) -> ir.Value:
                def block(index: ir.Value, _: _Values) -> _Values:
                    at = builder.add(first, builder.mul(index, _I64(vectors * width)))
                    own = [builder.gep(base, [at]) for base in bases]
                    generate(_Block(builder, lanes.element, vectors, live), own, share, rows, columns)
                    return []

                for_each(builder, count, [], block)
                return builder.add(first, builder.mul(count, _I64(vectors * width)))

            done = blocks(_VECTORS, _I64(0), builder.sdiv(columns, _I64(_VECTORS * width)))
            done = blocks(1, done, builder.sdiv(builder.sub(columns, done), _I64(width)))
            live = builder.sub(columns, done)
            blocks(1, done, builder.zext(builder.icmp_signed(">", live, _I64(0)), _I64), live)
            return context.get_dummy_value()

        return types.void(pointers, number, rows, columns), write

    return intrinsic(instruct)


def _moments(block: _Block, pointers: _Values, share: ir.Value, rows: ir.Value, row: ir.Value) -> None:
    builder, (x, mean_at, var_at) = block.builder, pointers

    def values(index: ir.Value) -> _Values:
        return block.load(x, builder.mul(index, row))

    means = [builder.fmul(total, share) for total in block.sum_rows(rows, values, 1)]

    def terms(index: ir.Value) -> _Values:
        centered = _each(builder.fsub, values(index), means)
        return [*centered, *_each(builder.fmul, centered, centered)]

    # What rounding left of the mean shows in the second pass, and is added to it.
    sums = [builder.fmul(total, share) for total in block.sum_rows(rows, terms, 2)]
    left, squares = sums[: block.vectors], sums[block.vectors :]
    block.store(_each(builder.fadd, means, left), mean_at, _I64(0))
    block.store(_each(builder.fsub, squares, _each(builder.fmul, left, left)), var_at, _I64(0))


def _make_scale(*, relu: bool, drop: bool) -> Callable[..., None]:
    def scale(block: _Block, pointers: _Values, _: ir.Value, rows: ir.Value, row: ir.Value) -> None:
        builder, (x, y, mask, slope_at, shift_at) = block.builder, pointers
        slopes, shifts = block.load(slope_at, _I64(0)), block.load(shift_at, _I64(0))

        def body(index: ir.Value, _: _Values) -> _Values:
            at = builder.mul(index, row)
            values = _each(block.lanes.multiply_add, block.load(x, at), slopes, shifts)
            values = _each(block.relu, values, values) if relu else values
            values = _each(builder.fmul, values, block.load(mask, at)) if drop else values
            block.store(values, y, at)
            return []

        for_each(builder, rows, [], body)

    return scale


def _make_backward(*, relu: bool, drop: bool) -> Callable[..., None]:
    def backward(block: _Block, pointers: _Values, share: ir.Value, rows: ir.Value, row: ir.Value) -> None:
        builder, multiply_add, zero = block.builder, block.lanes.multiply_add, _I64(0)
        x, g, mask, mean_at, rstd_at, weight_at, weight_grad, bias_grad, slope_at, shift_at = pointers
        means, rstds, weights = (block.load(one, zero) for one in (mean_at, rstd_at, weight_at))
        slopes, shifts = block.load(slope_at, zero), block.load(shift_at, zero)

        def terms(index: ir.Value) -> _Values:
            at = builder.mul(index, row)
            values, grads = block.load(x, at), block.load(g, at)
            if drop:
                grads = _each(builder.fmul, grads, block.load(mask, at))
            if relu:
                grads = _each(block.relu, _each(multiply_add, values, slopes, shifts), grads)
            if relu or drop:
                block.store(grads, g, at)
            return [*grads, *_each(builder.fmul, grads, _each(builder.fsub, values, means))]

        sums = block.sum_rows(rows, terms, 2)
        totals, moments = sums[: block.vectors], sums[block.vectors :]
        block.store(_each(builder.fadd, block.load(bias_grad, zero), totals), bias_grad, zero)
        block.store(_each(multiply_add, moments, rstds, block.load(weight_grad, zero)), weight_grad, zero)
        direct, centers = _each(builder.fmul, rstds, weights), [builder.fmul(total, share) for total in totals]
        cubed = _each(builder.fmul, direct, _each(builder.fmul, rstds, rstds))
        pulls = [builder.fneg(builder.fmul(one, share)) for one in _each(builder.fmul, cubed, moments)]

        def body(index: ir.Value, _: _Values) -> _Values:
            at = builder.mul(index, row)
            own = _each(builder.fmul, _each(builder.fsub, block.load(g, at), centers), direct)
            centered = _each(builder.fsub, block.load(x, at), means)
            block.store(_each(multiply_add, centered, pulls, own), g, at)
            return []

        for_each(builder, rows, [], body)

    return backward


_MOMENTS = _over_columns(_moments)


@inner
def column_moments(x: Any, first: int, last: int, mean: Any, var: Any) -> None:
    """Mean and biased variance of each column over the rows first … last - 1, in two passes against cancellation."""
    columns, share = x.shape[1], x.dtype.type(1.0 / (last - first))
    _MOMENTS((pointer(x, first * columns), pointer(mean, 0), pointer(var, 0)), share, last - first, columns)


def _make_scale_columns(*, relu: bool, drop: bool) -> Any:
    run = _over_columns(_make_scale(relu=relu, drop=drop))

    def scale_columns(x: Any, y: Any, first: int, last: int, slope: Any, shift: Any, mask: Any) -> None:
        """y = m · max(x · slope + shift, 0), by columns, for the rows first … last - 1; m or max may be left out."""
        start, unused = first * x.shape[1], x.dtype.type(0)
        matrices = (pointer(x, start), pointer(y, start), pointer(mask, start))
        run((*matrices, pointer(slope, 0), pointer(shift, 0)), unused, last - first, x.shape[1])

    return inner(scale_columns)


def _make_batch_norm_backward(*, relu: bool, drop: bool) -> Any:
    run = _over_columns(_make_backward(relu=relu, drop=drop))

    def batch_norm_backward(
        x: Any, g: Any, first: int, last: int, mean: Any, rstd: Any, weight: Any, weight_grad: Any, bias_grad: Any,
        slope: Any, shift: Any, mask: Any,
    ) -> None:  # fmt: skip
        """g ← gradient of x for the rows first … last - 1, which share moments; adds to those of weight and bias."""
        start, share = first * x.shape[1], x.dtype.type(1.0 / (last - first))
        matrices = (pointer(x, start), pointer(g, start), pointer(mask, start))
        vectors = (pointer(mean, 0), pointer(rstd, 0), pointer(weight, 0), pointer(weight_grad, 0))
        affine = (pointer(bias_grad, 0), pointer(slope, 0), pointer(shift, 0))
        run((*matrices, *vectors, *affine), share, last - first, x.shape[1])

    return inner(batch_norm_backward)


affine_columns = _make_scale_columns(relu=False, drop=False)
affine_relu_columns = _make_scale_columns(relu=True, drop=False)
affine_relu_dropout_columns = _make_scale_columns(relu=True, drop=True)
batch_norm_backward = _make_batch_norm_backward(relu=False, drop=False)
batch_norm_relu_backward = _make_batch_norm_backward(relu=True, drop=False)
batch_norm_relu_dropout_backward = _make_batch_norm_backward(relu=True, drop=True)
