"""Random numbers for variants that lie side by side: each row of a matrix is what `poise._random.Key` draws."""

from __future__ import annotations

from typing import Any

from poise.kernels.cpu import _philox
from poise.kernels.cpu._jit import entry


@entry
def keep_masks(out: Any, keys: Any, steps: Any, p: Any, scratch: Any) -> None:
    """Fill each row of `out` with the mask of its key, step and drop probability; `scratch` is as for `keep_mask`."""
    for variant in range(out.shape[0]):
        row = out[variant]
        if _philox.threshold_of(p[variant]) == 0:
            row[:] = 1
        else:
            _philox.keep_mask(row, row.size, keys[variant], steps[variant], p[variant], scratch)


@entry
def normals(out: Any, keys: Any, steps: Any, std: Any, bits: Any) -> None:
    """Fill each row of `out` with standard normal numbers, or zeros where std is 0; `bits` is scratch of a row + 4."""
    for variant in range(out.shape[0]):
        row = out[variant]
        row[:] = 0
        if std[variant] > 0:
            _philox.add_normal(row, row.size, 1.0, keys[variant], steps[variant], bits)
