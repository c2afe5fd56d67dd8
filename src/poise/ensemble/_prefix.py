"""The part of a network before its first random number, run once for many passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from poise.ensemble._sources import draws
from poise.surgery._graph._call import tensors_of


class Prefix(TorchFunctionMode):
    """Keeps what torch functions return up to the first random draw, and returns it again in later passes.

    Up to there every pass calls the same functions with the same numbers, whatever the network's structure. If a pass
    changes a kept tensor in place, or the part drew numbers by ways that are not seen, later passes run in full.

    Args:
        sources: Modules that draw as a whole.
    """

    def __init__(self, sources: list[nn.Module]) -> None:
        super().__init__()
        self._sources = sources
        self._tape: list[tuple[Any, Any]] = []
        self._stage: Literal["recording", "replaying", "off"] = "recording"
        self._versions: list[int] = []
        self._position = 0
        self._is_open = False  # whether this pass has drawn nothing yet
        self._before = torch.get_rng_state()

    @property
    def num_kept(self) -> int:
        """How many calls later passes leave out."""
        return len(self._tape)

    @contextmanager
    def one_pass(self) -> Iterator[None]:
        """Around a pass of the network."""
        self._position, self._is_open = 0, True
        self._before = torch.get_rng_state()
        handles = [module.register_forward_pre_hook(self._close) for module in self._sources]
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()
        if self._stage == "recording" or self._versions != self._versions_now():
            self._give_up()

    def _close(self, *_: Any) -> None:
        if self._is_open and self._stage == "recording":
            self._versions, self._stage = self._versions_now(), "replaying"
            if not torch.equal(self._before, torch.get_rng_state()):
                self._give_up()
        self._is_open = False

    def _give_up(self) -> None:
        self._tape, self._versions, self._stage = [], [], "off"

    def _versions_now(self) -> list[int]:
        # Tensors of inference mode have no version; the passes are made without it.
        return [one._version for _, output in self._tape for one in tensors_of(output) if not one.is_inference()]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._is_open and draws(func, args, kwargs):
            self._close()
        if not self._is_open or self._stage == "off":
            return func(*args, **kwargs)
        if self._stage == "replaying" and self._position < len(self._tape):
            kept, output = self._tape[self._position]
            self._position += 1
            if kept is func:
                return output
            self._is_open = False  # another way than before: what is left runs in full
        output = func(*args, **kwargs)
        if self._stage == "recording":
            self._tape.append((func, output))
        return output
