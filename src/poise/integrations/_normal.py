"""The quantile function of the normal distribution, of operators that every runtime has in float64."""

from __future__ import annotations

import torch
from torch import Tensor

# Coefficients from the constant term up, as published; relative error about 1e-16.
_CENTRAL = (
    (3.3871328727963666080, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
     4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3),
    (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3, 2.1213794301586595867e4,
     3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3),
)  # fmt: skip
_MIDDLE = (
    (1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550, 3.64784832476320460504,
     1.27045825245236838258, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187, 1.67638483018380384940, 6.89767334985100004550e-1, 1.48103976427480074590e-1,
     1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)  # fmt: skip
_HALF_WIDTH = 0.425
_LARGEST_ROOT = 5.0


def normal_quantile(p: Tensor) -> Tensor:
    """z with Φ(z) = p, for p in [1e-10, 1 - 1e-10] and float64.

    Reference: Wichura, "Algorithm AS 241: the percentage points of the normal distribution", Applied Statistics 37,
    1988.
    """
    from_middle = p - 0.5
    near = 0.180625 - from_middle * from_middle
    central = from_middle * _ratio(_CENTRAL, near)
    root = torch.sqrt(-torch.log(torch.minimum(p, 1 - p))).clamp(max=_LARGEST_ROOT)
    tail = torch.sign(from_middle) * _ratio(_MIDDLE, root - 1.6)
    return torch.where(torch.abs(from_middle) <= _HALF_WIDTH, central, tail)


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: Tensor) -> Tensor:
    above, below = (_polynomial(one, x) for one in coefficients)
    return above / below


def _polynomial(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    value = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + coefficient
    return value
