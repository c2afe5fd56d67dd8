"""Copies by vectors."""

import numpy as np
import pytest

from poise.kernels.cpu._jit import inner
from poise.kernels.cpu._vector import copy_part, pointer

from ._called import called


@inner
def _copy(source, start, target, at, count):
    copy_part(pointer(source, start), pointer(target, at), count)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_parts_are_copied_and_nothing_beside_them(dtype):
    copy, source = called(_copy), np.arange(100).astype(dtype)
    for count in range(41):
        target = np.full(60, 77, dtype)
        copy(source, count + 1, target, 3, count)
        np.testing.assert_array_equal(target[3 : 3 + count], source[count + 1 : 2 * count + 1])
        assert (np.delete(target, slice(3, 3 + count)) == 77).all()
