"""Layers that draw random numbers in training, each draw named by key and step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from poise._random import Key
from poise.nn._repeats import Repeats


def fresh_key() -> Key:
    """A key from torch's global generator, for layers that are made outside a training of ours."""
    return Key(int(torch.randint(2**62, ()).item()))


class Stochastic(nn.Module, ABC):
    """A layer that changes its input at random in training, or while `sampling`, and is the identity in eval mode.

    Every training pass uses the numbers of `key.at(step)` and then adds one to `step`; so a pass can be repeated by
    setting `step` back. A pass that gradient checkpointing repeats gets the numbers that it had.

    Args:
        key: Names the random numbers; None takes one from torch's global generator at the first training pass.
    """

    def __init__(self, key: Key | None = None) -> None:
        super().__init__()
        self.key = key
        self.step = 0
        self.sampling = False  # set by `poise.mc_dropout`: numbers are drawn in eval mode, too
        self._repeats = Repeats()

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
        return self.perturb(x, self._next_key())

    def _next_key(self) -> Key:
        if self.key is None:
            self.key = fresh_key()
        step = self._repeats.step_of_pass(self.step) if self.training else self.step
        self.step += step == self.step
        return self.key.at(step)


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
        _by_id[id(self)] = self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call] # torch's own has no types
        _by_id[id(self)] = self

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

    def next_noise(self, x: Tensor) -> Tensor:
        """The numbers of the next pass, for an input like x."""
        return self.noise(x.shape, self._next_key(), x.dtype).to(x.device)

    def forward(self, x: Tensor) -> Tensor:
        """`perturb` in training, x otherwise; the same shape."""
        if torch.compiler.is_compiling() and self.is_drawing and self.supply is None:
            return self.apply_noise(x, opaque_noise(x.detach(), id(self)), self.strength)
        if self.supply is None or not self.training:
            return super().forward(x)
        return self.apply_noise(x, *next(self.supply))


# Compiled code finds a layer by its id, which is a constant to it, while step and key change.
_by_id: WeakValueDictionary[int, Drawn] = WeakValueDictionary()


@torch.library.custom_op("poise::noise", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,))
def opaque_noise(x: Tensor, layer: int) -> Tensor:
    """The next numbers of a layer, for `torch.compile`, which cannot look into how they are made."""
    return _by_id[layer].next_noise(x)


@opaque_noise.register_fake
def _(x: Tensor, layer: int) -> Tensor:
    return x.new_empty(_by_id[layer].noise_shape(x.shape))


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
