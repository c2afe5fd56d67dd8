"""Large outputs: on large pages, and past the cache."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from llvmlite import ir
from numba import types as _types
from numba.core import cgutils as _cgutils
from torch import Tensor

from poise.kernels.cpu import _reuse
from poise.kernels.cpu._jit import VECTOR_BYTES, inner, instruction

cgutils: Any = _cgutils
types: Any = _types  # neither has annotations
_I8, _I64 = ir.IntType(8), ir.IntType(64)

_PAGE = 1 << 21
_SMALLEST = 4 * _PAGE
_MADV_HUGEPAGE = 14


def empty_like(x: Tensor) -> Tensor:
    """An uninitialized tensor, contiguous; a large one lies where another one lay, or on pages of 2 MiB.

    Fresh memory is mapped when it is first written. In pages of 4 KiB, that takes longer than the writing.
    """
    size = x.numel() * x.element_size()
    if size < _SMALLEST:
        return torch.empty(x.shape, dtype=x.dtype)
    block = _reuse.take(size)
    if block is None:
        block = torch.empty(size, dtype=torch.uint8)
        start = -(-block.data_ptr() // _PAGE) * _PAGE
        _madvise()(start, (block.data_ptr() + size - start) // _PAGE * _PAGE, _MADV_HUGEPAGE)
    return _reuse.lend(block, x.shape, x.dtype)


@cache
def _madvise() -> Callable[[int, int, int], object]:
    """The C library's, or nothing where it has none; it is advice, so what it answers does not matter."""
    if not sys.platform.startswith("linux"):
        return lambda *_: None
    try:
        function = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return lambda *_: None
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function


@instruction
def _stream(_typing: Any, source: Any, _size: Any, target: Any, _first: Any) -> Any:
    """target[first : first + size] = source[:size], same types, addresses and size whole vectors, past the cache."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, values: list[ir.Value]) -> Any:
        source_value, size, target_value, first = values
        width = context.get_abi_sizeof(context.get_data_type(source.dtype))
        vector = ir.VectorType(_I64, VECTOR_BYTES // 8).as_pointer()
        read, write = (
            builder.bitcast(cgutils.create_struct_proxy(kind)(context, builder, one).data, _I8.as_pointer())
            for kind, one in zip((source, target), (source_value, target_value), strict=True)
        )
        write = builder.gep(write, [builder.mul(first, _I64(width))])
        with cgutils.for_range(builder, builder.udiv(size, _I64(VECTOR_BYTES // width))) as loop:
            offset = [builder.mul(loop.index, _I64(VECTOR_BYTES))]
            loaded = builder.load(builder.bitcast(builder.gep(read, offset), vector), align=VECTOR_BYTES)
            stored = builder.store(loaded, builder.bitcast(builder.gep(write, offset), vector), align=VECTOR_BYTES)
            stored.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp), generate


@inner
def stream(source: Any, size: int, target: Any, first: int) -> bool:
    """target[first : first + size] = source[:size] past the cache, where types and addresses let it; else False.

    Memory that is written past the cache is not read before. `fence` must follow.
    """
    at, width = target.ctypes.data + first * target.itemsize, target.itemsize
    if source.itemsize != width or (at | source.ctypes.data | (size * width)) % VECTOR_BYTES != 0:
        return False
    _stream(source, size, target, first)
    return True


@instruction
def fence(_typing: Any) -> Any:
    """Let other threads see what `stream` wrote."""

    def generate(context: Any, builder: ir.IRBuilder, _signature: Any, _values: list[ir.Value]) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate
