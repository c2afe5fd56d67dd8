"""Batches from any loader, one model that takes them, and which of their positions count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from poise._errors import ConfigError, DataError, PoiseError
from poise.functional.population import Population
from poise.nn import BatchNorm
from poise.nn._positions import labels_of, mask_of
from poise.surgery._graph._call import Call
from poise.surgery._recalibration._statistics import BatchNormLayer, Reached, given_to

Mask = Callable[[Any], Tensor] | str | int
"""Which positions count: makes a boolean tensor of a batch, or is the place of one in it."""


@dataclass(frozen=True)
class Seen:
    """What a layer is given in a batch.

    Args:
        x: (N, C, ...).
        mask: Of the batch.
        batch: Its number.
        name: Of the layer.
        labels: The domain of each row (N,), for a layer that keeps statistics of each.
        own_mask: (N, 1, positions), which the layer itself was given.
    """

    x: Tensor
    mask: Tensor | None
    batch: int
    name: str
    labels: Tensor | None = None
    own_mask: Tensor | None = None

    def moments(self) -> dict[int | None, Population]:
        """Of the positions that count, by domain; None where a layer keeps none."""
        mask = None if self.mask is None else self._spread(self.mask)
        if self.own_mask is not None:
            own = self.own_mask.reshape(self.x.shape[0], *self.x.shape[2:])
            mask = own if mask is None else own & mask.to(own.device).reshape(own.shape)
        if self.labels is None:
            return {None: Population.of(self.x, mask)}
        found: dict[int | None, Population] = {}
        for domain in sorted(set(self.labels.tolist())):
            rows = self.labels == domain
            found[domain] = Population.of(self.x[rows], None if mask is None else mask[rows.to(mask.device)])
        return found

    def _spread(self, mask: Tensor) -> Tensor:
        shape = (self.x.shape[0], *self.x.shape[2:])
        if mask.shape == shape[: mask.ndim]:
            return mask.reshape(*mask.shape, *[1] * (len(shape) - mask.ndim)).expand(shape)
        if len(shape) == 1 and mask.numel() == len(self.x):
            return mask
        if len(shape) == 1 and len(mask) == len(self.x):
            return mask.flatten(1).any(1)  # positions were pooled: a row counts if any of it does
        raise DataError(
            f"A mask {tuple(mask.shape)} does not fit an input {tuple(self.x.shape)}, which is (N, C, ...).",
            where=f"layer {self.name!r}, batch {self.batch}",
            repair="The mask must be (N, ...) as the input without its channels, or its first axes.",
        )


@dataclass(frozen=True)
class Feed:
    """Runs a model on every batch of a loader, each time from the same state of torch's random generator.

    Args:
        model: In the mode it shall run in.
        batches: Any iterable.
        call: Runs the model on a batch.
        mask: Which positions count; None for all.
        names: Of the layers that may be watched.
    """

    model: nn.Module
    batches: Iterable[Any]
    call: Call
    mask: Mask | None
    names: Mapping[BatchNormLayer, str]

    def run(self, layers: Sequence[BatchNormLayer], see: Callable[[BatchNormLayer, Seen], None]) -> None:
        """Pass every batch; `see` hears of each input of `layers` and may end the batch by `Reached`.

        Raises:
            DataError: If there is no batch, or the model does not take one.
        """
        batch = -1
        mask: Tensor | None = None

        def hear(layer: BatchNormLayer, x: Tensor, keywords: dict[str, Any]) -> None:
            seen = Seen(x, mask, batch, self.names[layer])
            if isinstance(layer, BatchNorm):
                domain = keywords.get("domain")
                labels = labels_of(layer.domain if domain is None else domain, x, layer.num_domains)
                seen = replace(seen, labels=labels, own_mask=mask_of(keywords.get("mask"), x))
            see(layer, seen)

        # A loader that shuffles or augments with torch repeats itself, and the caller's own stream is not consumed.
        with torch.random.fork_rng(devices=[]), given_to(layers, hear):
            for batch, content in enumerate(self.batches):
                mask = None if self.mask is None else self._mask_of(content, batch)
                self._pass(content, batch)
        if batch < 0:
            raise DataError("The loader yields no batch.", repair="Give batches over all rows, again on every pass.")

    def _pass(self, content: Any, batch: int) -> None:
        try:
            self.call(self.model, content)
        except Reached:
            return
        except PoiseError:
            raise
        except Exception as error:
            raise DataError(
                f"{type(self.model).__name__} does not take it: {type(error).__name__}: {error}",
                where=f"batch {batch}, {_describe(content)}",
                repair="Give call=lambda model, batch: ... that runs the model on a batch.",
            ) from error

    def _mask_of(self, content: Any, batch: int) -> Tensor:
        try:
            found = self.mask(content) if callable(self.mask) else content[self.mask]
        except Exception as error:
            raise DataError(
                f"`mask` finds nothing: {type(error).__name__}: {error}",
                where=f"batch {batch}, {_describe(content)}",
                repair="Give the key of a mask in the batch, or mask=lambda batch: ... that makes one.",
            ) from error
        if not isinstance(found, Tensor) or found.ndim == 0:
            raise DataError(f"`mask` must give a tensor (N, ...), but gives {found!r}.", where=f"batch {batch}")
        return found.bool()


def check_batches(batches: object, *, passes: bool) -> None:
    """Raise unless `batches` can be iterated, over and over where several passes are needed.

    Args:
        batches: Any.
        passes: Whether there is more than one.

    Raises:
        ConfigError: If it is a single batch or nothing to iterate.
        DataError: If it can be read only once.
    """
    if isinstance(batches, Tensor | Mapping | str) or not isinstance(batches, Iterable):
        kind = type(batches).__name__
        raise ConfigError(f"`batches` must be batches over all rows, but got a {kind}.", repair="Give [batch].")
    if passes and isinstance(batches, Iterator):
        raise DataError(
            "It can be read only once, and layer by layer needs a pass for each layer.",
            where=f"batches, a {type(batches).__name__}",
            repair="Give a list or a loader, or sequential=False.",
        )


def is_single(batches: Iterable[Any]) -> bool:
    """Whether there is one batch for certain."""
    try:
        return isinstance(batches, Sized) and len(batches) == 1
    except TypeError:  # a DataLoader of rows that cannot be counted
        return False


def _describe(content: Any) -> str:
    if isinstance(content, Tensor):
        return f"a tensor {tuple(content.shape)}"
    if isinstance(content, Mapping):
        return f"a dict of {list(content)}"
    if isinstance(content, list | tuple):
        return f"a {type(content).__name__} of {len(content)}"
    return f"a {type(content).__name__}"
