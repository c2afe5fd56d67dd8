"""Layers that draw random numbers in training, each draw named by key and step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from poise._random import Key


def fresh_key() -> Key:
    """A key from torch's global generator, for layers that are made outside a training of ours."""
    return Key(int(torch.randint(2**62, ()).item()))


class Stochastic(nn.Module, ABC):
    """A layer that changes its input at random in training, or while `sampling`, and is the identity in eval mode.

    Every training pass uses the numbers of `key.at(step)` and then adds one to `step`; so a pass can be repeated by
    setting `step` back.

    Args:
        key: Names the random numbers; None takes one from torch's global generator at the first training pass.
    """

    def __init__(self, key: Key | None = None) -> None:
        super().__init__()
        self.key = key
        self.step = 0
        self.sampling = False  # set by `poise.mc_dropout`: numbers are drawn in eval mode, too

    @property
    def is_drawing(self) -> bool:
        """Whether the next pass draws random numbers."""
        return (self.training or self.sampling) and self.is_active()

    @abstractmethod
    def is_active(self) -> bool:
        """Whether the strength is above zero."""

    @abstractmethod
    def perturb(self, x: Tensor, key: Key) -> Tensor:
        """The changed input."""

    def forward(self, x: Tensor) -> Tensor:
        """`perturb` in training, x otherwise; the same shape."""
        if not self.is_drawing:
            return x
        if self.key is None:
            self.key = fresh_key()
        key = self.key.at(self.step)
        self.step += 1
        return self.perturb(x, key)


class Drawn(Stochastic):
    """A stochastic layer whose numbers can be drawn before its input is there, as layers that are stacked need.

    Args:
        key: As for `Stochastic`.
    """

    draws: ClassVar[Literal["keep", "normal"]]

    def __init__(self, key: Key | None = None) -> None:
        super().__init__(key)
        # Numbers and strength for each of the coming passes, where somebody else draws them.
        self.supply: Iterator[tuple[Tensor, ...]] | None = None

    @property
    @abstractmethod
    def strength(self) -> float:
        """Of the change; zero leaves x as it is."""

    @abstractmethod
    def apply_noise(self, x: Tensor, noise: Tensor, strength: float | Tensor) -> Tensor:
        """The changed input; `strength` may be a tensor without axes."""

    def noise_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of the numbers for an input of `shape`, which it broadcasts with."""
        return tuple(shape)

    def noise(self, shape: Sequence[int], key: Key, dtype: torch.dtype) -> Tensor:
        """The numbers for an input of `shape`: a mask for the drop probability `strength`, or standard normal."""
        shape = self.noise_shape(shape)
        if self.draws == "keep":
            return key.keep_mask(*shape, p=self.strength, dtype=dtype)
        return key.normal(*shape, dtype=dtype)

    def is_active(self) -> bool:
        """Whether the strength is above zero."""
        return self.strength > 0

    def perturb(self, x: Tensor, key: Key) -> Tensor:
        """The changed input."""
        return self.apply_noise(x, self.noise(x.shape, key, x.dtype).to(x.device), self.strength)

    def forward(self, x: Tensor) -> Tensor:
        """`perturb` in training, x otherwise; the same shape."""
        if self.supply is None or not self.training:
            return super().forward(x)
        return self.apply_noise(x, *next(self.supply))


def assign_keys(network: nn.Module, key: Key) -> None:
    """Give every stochastic layer of `network` a stream of `key`, named by its place, and step 0.

    Example:
        >>> from poise.nn import Dropout
        >>> network = nn.Sequential(Dropout(p=0.5), Dropout(p=0.5))
        >>> assign_keys(network, Key(0))
        >>> network[0].key == network[1].key
        False
    """
    for name, layer in network.named_modules():
        if isinstance(layer, Stochastic):
            layer.key = key.stream("mask", name)
            layer.step = 0


def set_step(network: nn.Module, step: int) -> None:
    """Let every stochastic layer of `network` draw the numbers of `step` next.

    Example:
        >>> from poise.nn import Dropout
        >>> network, x = Dropout(p=0.5), torch.ones(100)
        >>> first = network(x)
        >>> set_step(network, 0)
        >>> bool((network(x) == first).all())
        True
    """
    for layer in network.modules():
        if isinstance(layer, Stochastic):
            layer.step = step
