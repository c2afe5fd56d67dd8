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
_MIDDLE_ROOT = 1.6


def normal_quantile(p: Tensor) -> Tensor:
    """z with Φ(z) = p, for p in [1e-10, 1 - 1e-10] and float64.

    Reference: Wichura, "Algorithm AS 241: the percentage points of the normal distribution", Applied Statistics 37,
    1988.
    """
    # As tensors: exporters round plain numbers to float32.
    half_width, middle = (torch.tensor(one, dtype=p.dtype) for one in (_HALF_WIDTH, _MIDDLE_ROOT))
    from_middle = p - 0.5
    central = from_middle * _ratio(_CENTRAL, half_width * half_width - from_middle * from_middle)
    root = torch.sqrt(-torch.log(torch.minimum(p, 1 - p)))
    tail = torch.sign(from_middle) * _ratio(_MIDDLE, root - middle)
    return torch.where(torch.abs(from_middle) <= half_width, central, tail)


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: Tensor) -> Tensor:
    # As one product with all powers: exporters take their time for every operator of a Horner scheme.
    square = x * x
    fourth = square * square
    low = torch.stack((torch.ones_like(x), x, square, square * x), dim=-1)
    powers = torch.cat((low, low * fourth.unsqueeze(-1)), dim=-1)
    above, below = (powers @ torch.tensor(coefficients, dtype=x.dtype).T).unbind(-1)
    return above / below
