"""Vector instructions that a compiler does not find by itself: matrix tiles, transposes, bits of numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types as _types
from numba.core import cgutils as _cgutils

from poise.kernels.cpu._jit import VECTOR_BYTES, instruction

cgutils: Any = _cgutils
types: Any = _types  # neither has annotations
_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _vector_type(element: ir.Type) -> ir.VectorType:
    return ir.VectorType(element, VECTOR_BYTES // _size(element))


def _size(element: ir.Type) -> int:
    if isinstance(element, ir.IntType):
        return int(element.width) // 8
    return 8 if isinstance(element, ir.DoubleType) else 4


def _splat(builder: ir.IRBuilder, value: ir.Value, lanes: int) -> ir.Value:
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, value, _I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes))


class Lanes:
    """Loads and stores of whole vectors, or of their first `live` lanes."""

    def __init__(self, builder: ir.IRBuilder, element: ir.Type, live: ir.Value | None = None) -> None:
        self.builder, self.element, self.type = builder, element, _vector_type(element)
        self.count, self.mask = self.type.count, None
        self.zero = ir.Constant(self.type, [ir.Constant(element, 0)] * self.count)
        if live is not None:
            numbers = ir.Constant(ir.VectorType(_I64, self.count), list(range(self.count)))
            self.mask = builder.icmp_signed("<", numbers, _splat(builder, live, self.count))

    def _at(self, base: ir.Value, offset: ir.Value) -> ir.Value:
        return self.builder.bitcast(self.builder.gep(base, [offset]), self.type.as_pointer())

    def _masked(self, name: str, result: ir.Type, arguments: list[ir.Type]) -> ir.Function:
        kind = "i" if isinstance(self.element, ir.IntType) else "f"
        suffix = f"v{self.count}{kind}{8 * _size(self.element)}"
        signature = ir.FunctionType(result, arguments)
        return cgutils.get_or_insert_function(self.builder.module, signature, f"llvm.masked.{name}.{suffix}.p0{suffix}")

    def load(self, base: ir.Value, offset: ir.Value) -> ir.Value:
        pointer, align = self._at(base, offset), _size(self.element)
        if self.mask is None:
            return self.builder.load(pointer, align=align)
        function = self._masked("load", self.type, [pointer.type, _I32, self.mask.type, self.type])
        return self.builder.call(function, [pointer, _I32(align), self.mask, self.zero])

    def store(self, value: ir.Value, base: ir.Value, offset: ir.Value) -> None:
        pointer, align = self._at(base, offset), _size(self.element)
        if self.mask is None:
            self.builder.store(value, pointer, align=align)
        else:
            function = self._masked("store", ir.VoidType(), [self.type, pointer.type, _I32, self.mask.type])
            self.builder.call(function, [value, pointer, _I32(align), self.mask])

    def spread(self, value: ir.Value) -> ir.Value:
        """A vector that holds `value` in every lane."""
        return _splat(self.builder, value, self.count)

    def add_products_of_pairs(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """c + a0 b0 + a1 b1, where each lane of a and b holds two bfloat16 numbers."""
        name, signature = "llvm.x86.avx512bf16.dpbf16ps.512", ir.FunctionType(self.type, [self.type, a.type, b.type])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, signature, name), [c, a, b])

    def multiply_add(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        signature = ir.FunctionType(self.type, [self.type] * 3)
        name = f"llvm.fma.v{self.count}f{8 * _size(self.element)}"
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, signature, name), [a, b, c])


def for_each(
    builder: ir.IRBuilder,
    count: ir.Value,
    carried: list[ir.Value],
    body: Callable[[ir.Value, list[ir.Value]], list[Any]],
) -> list[ir.Value]:
    """Run `body(index, carried)` for 0 … count - 1; it returns the new carried values. Returns the last ones."""
    before = builder.block
    loop, after = builder.append_basic_block("loop"), builder.append_basic_block("after")
    builder.cbranch(builder.icmp_signed("<", _I64(0), count), loop, after)
    builder.position_at_end(loop)
    index = builder.phi(_I64)
    now = [builder.phi(one.type) for one in carried]
    then = body(index, now)
    following = builder.add(index, _I64(1))
    end = builder.block
    index.add_incoming(_I64(0), before)
    index.add_incoming(following, end)
    for phi, start, grown in zip(now, carried, then, strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(grown, end)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
    builder.position_at_end(after)
    results = []
    for start, grown in zip(carried, then, strict=True):
        result = builder.phi(start.type)
        result.add_incoming(start, before)
        result.add_incoming(grown, end)
        results.append(result)
    return results


def tile(rows: int, vectors: int, *, masked: bool, pairs: bool = False) -> Any:
    """C[i, j] = Σ_k A[i, k] B[k, j] for `rows` rows and `vectors` vectors of columns, held in registers throughout.

    Where `masked`, the last vector has fewer columns. With `pairs`, each element of A and B is an int32 that holds two
    bfloat16 numbers, whose products are both added.

    The made function takes (a, a_row, a_column, b, b_row, c, c_row, depth, live): pointers, the distances of their rows
    (and of A's columns) in elements, the length of the sum, ≥ 1, and, where masked, the columns of the last vector.
    """

    @instruction
    def product(_typing: Any, a: Any, a_row: Any, a_column: Any, b: Any, b_row: Any, c: Any, c_row: Any, depth: Any,
                live: Any) -> Any:  # fmt: skip
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> Any:
            a, a_row, a_column, b, b_row, c, c_row, depth, live = arguments
            element = context.get_value_type(signature.args[5].dtype)
            lanes = Lanes(builder, element)
            whole = [True] * (vectors - 1) + [not masked]
            factors = [Lanes(builder, _I32 if pairs else element, None if full else live) for full in whole]
            results = [Lanes(builder, element, None if full else live) for full in whole]
            multiply_add = lanes.add_products_of_pairs if pairs else lanes.multiply_add
            before, loop = builder.block, builder.append_basic_block("depth")
            after = builder.append_basic_block("store")
            builder.branch(loop)
            builder.position_at_end(loop)
            k = builder.phi(_I64)
            sums = [[builder.phi(lanes.type) for _ in range(vectors)] for _ in range(rows)]
            b_k, a_k = builder.mul(k, b_row), builder.mul(k, a_column)
            right = [one.load(b, builder.add(b_k, _I64(v * lanes.count))) for v, one in enumerate(factors)]
            following = builder.add(k, _I64(1))
            for i, row in enumerate(sums):
                left = builder.load(builder.gep(a, [builder.add(a_k, builder.mul(a_row, _I64(i)))]))
                spread = _splat(builder, left, lanes.count)
                for v, total in enumerate(row):
                    grown = multiply_add(spread, right[v], total)
                    total.add_incoming(lanes.zero, before)
                    total.add_incoming(grown, loop)
                    row[v] = grown
            k.add_incoming(_I64(0), before)
            k.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
            builder.position_at_end(after)
            for i, row in enumerate(sums):
                for v, total in enumerate(row):
                    results[v].store(total, c, builder.add(builder.mul(c_row, _I64(i)), _I64(v * lanes.count)))
            return context.get_dummy_value()

        whole = types.intp
        return types.void(a, whole, whole, b, whole, c, whole, whole, whole), generate

    return product


def _transpose(*, whole: bool) -> Any:
    @instruction
    def block(_typing: Any, source: Any, source_row: Any, target: Any, target_row: Any, rows: Any, columns: Any) -> Any:
        """target[j, i] = source[i, j] for a square block as wide as a vector; rows lie `*_row` elements apart.

        Unless it is whole, `rows` and `columns` of the source are there.
        """

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> Any:
            source, source_row, target, target_row, rows, columns = arguments
            full = Lanes(builder, context.get_value_type(signature.args[0].dtype))

            def lanes(index: int, lines: ir.Value, live: ir.Value) -> Lanes:
                is_there = builder.icmp_signed("<", _I64(index), lines)
                return full if whole else Lanes(builder, full.element, builder.select(is_there, live, _I64(0)))

            block = [lanes(i, rows, columns).load(source, builder.mul(source_row, _I64(i))) for i in range(full.count)]
            step = 1
            while step < full.count:
                block = _exchange(builder, block, step)
                step *= 2
            for j, row in enumerate(block):
                lanes(j, columns, rows).store(row, target, builder.mul(target_row, _I64(j)))
            return context.get_dummy_value()

        whole_number = types.intp
        return types.void(source, whole_number, target, whole_number, whole_number, whole_number), generate

    return block


transpose_block, transpose_edge = _transpose(whole=True), _transpose(whole=False)


def _exchange(builder: ir.IRBuilder, rows: list[ir.Value], step: int) -> list[ir.Value]:
    """Swap the off-diagonal parts of every 2 × 2 block of parts of `step` elements."""
    count, done = len(rows), list(rows)
    for i in range(count):
        if i & step:
            continue
        upper = [j if not j & step else count + j - step for j in range(count)]
        lower = [j + step if not j & step else count + j for j in range(count)]
        for at, order in ((i, upper), (i + step, lower)):
            mask = ir.Constant(ir.VectorType(_I32, count), order)
            done[at] = builder.shuffle_vector(rows[i], rows[i + step], mask)
    return done


@instruction
def pointer(_typing: Any, array: Any, offset: Any) -> Any:
    """The address of element `offset` of a contiguous array, counted as if it were flat."""
    if array.layout != "C":
        return None  # a typing error: elements would not lie where they are looked for

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> Any:
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, arguments[0]).data
        return builder.gep(data, [arguments[1]])

    return types.CPointer(array.dtype)(array, types.intp), generate


@instruction
def copy_part(_typing: Any, source: Any, target: Any, count: Any) -> Any:
    """Copy `count` elements that lie one after the other from the address `source` to `target`; both must not overlap.

    A compiler would copy what does not fill a vector, most of a narrow row, element by element.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> Any:
        source, target, count = arguments
        lanes = Lanes(builder, context.get_value_type(signature.args[0].dtype))
        number = builder.sdiv(count, _I64(lanes.count))

        def body(index: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            at = builder.mul(index, _I64(lanes.count))
            lanes.store(lanes.load(source, at), target, at)
            return []

        for_each(builder, number, [], body)
        done = builder.mul(number, _I64(lanes.count))
        rest = Lanes(builder, lanes.element, builder.sub(count, done))
        rest.store(rest.load(source, done), target, done)
        return context.get_dummy_value()

    return types.void(source, target, types.intp), generate


@instruction
def prefetch(_typing: Any, address: Any) -> Any:
    """Have a line of memory brought near, without waiting for it."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> Any:
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, _I32, _I32, _I32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [builder.bitcast(arguments[0], byte), _I32(0), _I32(3), _I32(1)])
        return context.get_dummy_value()

    return types.void(address), generate


@instruction
def float_of_bits(_typing: Any, bits: Any) -> Any:
    """The floating-point number with these bits."""
    result = {types.int32: types.float32, types.int64: types.float64}[bits]
    return result(bits), lambda context, builder, signature, arguments: builder.bitcast(
        arguments[0], context.get_value_type(result)
    )


@instruction
def bits_of_float(_typing: Any, value: Any) -> Any:
    """The bits of a floating-point number."""
    result = {types.float32: types.int32, types.float64: types.int64}[value]
    return result(value), lambda context, builder, signature, arguments: builder.bitcast(
        arguments[0], context.get_value_type(result)
    )


@instruction
def select(_typing: Any, condition: Any, a: Any, b: Any) -> Any:
    """a where `condition` else b, both computed: a branch would keep a loop from becoming vectors."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: list[ir.Value]) -> Any:
        return builder.select(*arguments)

    return a(types.boolean, a, a), generate
