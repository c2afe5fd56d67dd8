"""Parallel regions of machine code on the threads that torch already has.

A second pool of threads would fight torch's for the same cores. The wheels of torch come with GNU's or LLVM's OpenMP
runtime; both offer `GOMP_parallel`, which runs a C function on all threads of a team.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch
from llvmlite import ir
from numba import types as _types
from numba.core import cgutils as _cgutils

from poise.kernels.cpu._jit import instruction

cgutils: Any = _cgutils
types: Any = _types  # neither has annotations
_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)


def team() -> tuple[int, int]:
    """What `parallel` wants to know: where GOMP_parallel lies, 0 for nowhere, and how many threads torch uses."""
    threads = torch.get_num_threads()
    address = _gomp_parallel() if threads > 1 else 0
    return address, threads if address else 1


@cache
def _gomp_parallel() -> int:
    """The address of GOMP_parallel in the OpenMP runtime that torch has loaded, 0 if it has none that offers it."""
    if sys.platform == "win32":
        return 0
    packages = Path(torch.__file__).parents[1]
    folders = (packages / "torch" / "lib", packages / "torch.libs", Path(sys.prefix) / "lib")
    for path in (path for folder in folders for path in sorted(folder.glob("lib*omp*"))):
        try:
            # NOLOAD: take a runtime that is there, never bring in a second one.
            library = ctypes.CDLL(str(path), mode=os.RTLD_NOW | os.RTLD_NOLOAD)
            return ctypes.cast(library.GOMP_parallel, ctypes.c_void_p).value or 0
        except (OSError, AttributeError):
            continue
    return 0


@instruction
def parallel(_typing: Any, _gomp: Any, _threads: Any, function: Any, arguments: Any) -> Any:
    """Run function(*arguments) once on each thread of a `team`, or once here where its first entry is 0.

    The function shares out the work by `take`. It must not raise.
    """
    signature = function.get_call_type(_typing, arguments.types, {})

    def generate(context: Any, builder: ir.IRBuilder, _signature: Any, values: list[ir.Value]) -> Any:
        gomp_value, threads_value, _, packed = values
        compiled = function.dispatcher.get_compile_result(signature)
        context.active_code_library.add_linking_library(compiled.library)
        region = _region(context, builder.module, compiled.fndesc, signature, packed.type)
        place = cgutils.alloca_once_value(builder, packed)
        data = builder.bitcast(place, _I8.as_pointer())
        team_type = ir.FunctionType(ir.VoidType(), [region.type, _I8.as_pointer(), _I32, _I32])
        with builder.if_else(builder.icmp_signed("!=", gomp_value, _I64(0))) as (pooled, alone):
            with pooled:
                runtime = builder.inttoptr(gomp_value, team_type.as_pointer())
                builder.call(runtime, [region, data, builder.trunc(threads_value, _I32), _I32(0)])
            with alone:
                builder.call(region, [data])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, function, arguments), generate


def _region(context: Any, module: ir.Module, descriptor: Any, signature: Any, packed: ir.Type) -> ir.Function:
    """A C function of one pointer, to arguments that lie packed, that calls the compiled function with them."""
    kind = ir.FunctionType(ir.VoidType(), [_I8.as_pointer()])
    region = ir.Function(module, kind, module.get_unique_name(f"region.{descriptor.mangled_name}"))
    region.linkage = "internal"
    builder = ir.IRBuilder(region.append_basic_block("entry"))
    loaded = builder.load(builder.bitcast(region.args[0], packed.as_pointer()))
    values = [builder.extract_value(loaded, number) for number in range(len(signature.args))]
    context.call_internal_no_propagate(builder, descriptor, signature, values)
    builder.ret_void()
    return region


@instruction
def take(_typing: Any, counter: Any) -> Any:
    """counter[0]++ for an int64 vector that threads share: which piece of work to do next."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, values: list[ir.Value]) -> Any:
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, values[0]).data
        return builder.atomic_rmw("add", data, _I64(1), "monotonic")

    return types.int64(counter), generate


@instruction
def array_at(_typing: Any, _address: Any, _size: Any, like: Any) -> Any:
    """The flat array of so many elements of `like`'s type at an address; nobody owns it."""
    result = types.Array(like.dtype, 1, "C", aligned=True)

    def generate(context: Any, builder: ir.IRBuilder, _signature: Any, values: list[ir.Value]) -> Any:
        element = context.get_data_type(like.dtype)
        width = context.get_constant(types.intp, context.get_abi_sizeof(element))
        made = cgutils.create_struct_proxy(result)(context, builder)
        made.data = builder.inttoptr(values[0], element.as_pointer())
        made.shape = cgutils.pack_array(builder, [values[1]])
        made.strides = cgutils.pack_array(builder, [width])
        made.itemsize, made.nitems = width, values[1]
        made.meminfo = cgutils.get_null_value(made.meminfo.type)
        made.parent = cgutils.get_null_value(made.parent.type)
        return made._getvalue()

    return result(types.int64, types.int64, like), generate
