"""bfloat16 as its bits: stored as uint16, computed as float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from poise.kernels.cpu._jit import exact
from poise.kernels.cpu._vector import bits_of_float, float_of_bits, select

_u, _i = np.uint32, np.int32


def widen(value: Any) -> Any:
    """The number that is stored as `value`: float32 for the bits of a bfloat16, otherwise the value itself."""
    raise NotImplementedError("for machine code")


def narrow(value: Any, store: Any) -> Any:
    """`value` as the array `store` holds it: a bfloat16 is rounded to the nearest, ties to even."""
    raise NotImplementedError("for machine code")


@exact
def _rounded(value: Any) -> Any:
    bits = _u(bits_of_float(value))
    rounded = (bits + _u(0x7FFF) + ((bits >> _u(16)) & _u(1))) >> _u(16)
    # Rounding would carry some NaNs over into infinity.
    return np.uint16(select(value != value, _u(0x7FC0), _u(rounded)))  # noqa: PLR0124


@overload(widen)
def _widen(value):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 - Numba compares the names of arguments only
    if value == types.uint16:
        return lambda value: float_of_bits(_i(_u(value) << _u(16)))
    return lambda value: value


@overload(narrow)
def _narrow(value, store):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    if store.dtype == types.uint16:
        return lambda value, store: _rounded(value)  # noqa: ARG005
    return lambda value, store: store.dtype.type(value)
