"""Dropout and its relatives."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from poise._checks import Interval, check_real
from poise._random import Key
from poise.nn._stochastic import Drawn

_PROBABILITY = Interval(0, 1, high_open=True)
# The value that a saturated SELU unit has: -scale * alpha of Klambauer et al.
_SATURATED = -1.7580993408473766


class _Drop(Drawn):
    """A layer that drops with probability `p`, in [0, 1), which may be set anew between steps."""

    draws = "keep"

    def __init__(self, p: float, key: Key | None) -> None:
        super().__init__(key)
        check_real("p", p, _PROBABILITY)
        self.p = p

    @property
    def strength(self) -> float:
        """The probability p."""
        return self.p

    def extra_repr(self) -> str:
        """As torch prints it."""
        return f"p={self.p}"


class Dropout(_Drop):
    """y = x · m / (1 - p), m ~ Bernoulli(1 - p) for each element; a drop-in for `torch.nn.Dropout`.

    Args:
        p: Drop probability, in [0, 1).
        key: Names the masks; None takes one from torch's global generator.

    Shape:
        Any in, the same out.

    Raises:
        ConfigError: If `p` is out of range.

    Example:
        >>> import torch
        >>> Dropout(0.5).eval()(torch.ones(2))
        tensor([1., 1.])

    Reference: Srivastava et al., "Dropout", JMLR 15, 2014.
    """

    def __init__(self, p: float = 0.5, *, key: Key | None = None) -> None:
        super().__init__(p, key)

    def apply_noise(self, x: Tensor, noise: Tensor, strength: float | Tensor) -> Tensor:
        """x times a mask."""
        return x * noise


class ChannelDropout(_Drop):
    """y_c = x_c · m_c / (1 - p), one m_c ~ Bernoulli(1 - p) for each channel c of each row; whole maps are dropped.

    A drop-in for `torch.nn.Dropout1d`, `Dropout2d` and `Dropout3d` on batches. Neighbors in a map are alike, so that
    dropping single elements would hide little.

    Args:
        p: Drop probability, in [0, 1).
        key: Names the masks; None takes one from torch's global generator.

    Shape:
        (B, C, ...) in, the same out; for (B, C) it is `Dropout`.

    Raises:
        ConfigError: If `p` is out of range.

    Example:
        >>> import torch
        >>> y = ChannelDropout(0.5, key=Key(0))(torch.ones(1, 8, 2, 2))
        >>> bool((y == y[:, :, :1, :1]).all()), sorted(set(y.flatten().tolist()))
        (True, [0.0, 2.0])

    Reference: Tompson et al., "Efficient object localization using convolutional networks", CVPR 2015.
    """

    def __init__(self, p: float = 0.5, *, key: Key | None = None) -> None:
        super().__init__(p, key)

    def noise_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """One number for each channel of each row."""
        return (*shape[:2], *([1] * (len(shape) - 2)))

    def apply_noise(self, x: Tensor, noise: Tensor, strength: float | Tensor) -> Tensor:
        """Whole maps times a mask."""
        return x * noise


class AlphaDropout(_Drop):
    """y = a · (x · m + α' · (1 - m)) + b, with a and b such that mean 0 and variance 1 stay; for SELU networks.

    α' = -1.758 is where SELU saturates, q = 1 - p, a = (q + α'² q p)^(-1/2) and b = -a p α'.

    Args:
        p: Drop probability, in [0, 1).
        key: Names the masks; None takes one from torch's global generator.

    Shape:
        Any in, the same out.

    Raises:
        ConfigError: If `p` is out of range.

    Example:
        >>> import torch
        >>> AlphaDropout(0.1).eval()(torch.ones(2))
        tensor([1., 1.])

    Reference: Klambauer et al., "Self-normalizing neural networks", NeurIPS 2017.
    """

    def __init__(self, p: float = 0.1, *, key: Key | None = None) -> None:
        super().__init__(p, key)

    def apply_noise(self, x: Tensor, noise: Tensor, strength: float | Tensor) -> Tensor:
        """Dropped elements saturate, then all are shifted and scaled back."""
        keep, q = noise.ne(0).to(x.dtype), 1 - strength
        variance = q + _SATURATED**2 * q * strength
        a = 1 / (torch.sqrt(variance) if isinstance(variance, Tensor) else math.sqrt(variance))
        return a * (x * keep + _SATURATED * (1 - keep)) - a * strength * _SATURATED


class DropPath(_Drop):
    """y_i = x_i · m_i / (1 - p), one m_i ~ Bernoulli(1 - p) for each row i: stochastic depth on a residual branch.

    Args:
        p: Drop probability, in [0, 1).
        key: Names the masks; None takes one from torch's global generator.

    Shape:
        (B, ...) in, the same out.

    Raises:
        ConfigError: If `p` is out of range.

    Example:
        >>> import torch
        >>> DropPath(0.5).eval()(torch.ones(2, 1)).flatten()
        tensor([1., 1.])

    Reference: Huang et al., "Deep networks with stochastic depth", ECCV 2016.
    """

    def __init__(self, p: float = 0.1, *, key: Key | None = None) -> None:
        super().__init__(p, key)

    def noise_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """One number for each row."""
        return (shape[0], *([1] * (len(shape) - 1)))

    def apply_noise(self, x: Tensor, noise: Tensor, strength: float | Tensor) -> Tensor:
        """Whole rows times a mask."""
        return x * noise


class GaussianNoise(Drawn):
    """y = x + std · ε, ε ~ N(0, 1) for each element.

    Args:
        std: Standard deviation in units of x, ≥ 0.
        key: Names the noise; None takes one from torch's global generator.

    Shape:
        Any in, the same out.

    Raises:
        ConfigError: If `std` is out of range.

    Example:
        >>> import torch
        >>> GaussianNoise(0.1).eval()(torch.ones(2))
        tensor([1., 1.])

    Reference: Bishop, "Training with noise is equivalent to Tikhonov regularization", Neural Computation 7, 1995.
    """

    draws = "normal"

    def __init__(self, std: float = 0.1, *, key: Key | None = None) -> None:
        super().__init__(key)
        check_real("std", std, Interval(0))
        self.std = std

    @property
    def strength(self) -> float:
        """The standard deviation."""
        return self.std

    def apply_noise(self, x: Tensor, noise: Tensor, strength: float | Tensor) -> Tensor:
        """x plus noise."""
        return x + strength * noise

    def extra_repr(self) -> str:
        """As torch prints it."""
        return f"std={self.std}"
