"""Rows of a user's own, as batches whose order has a name."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence, Sized
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate

from poise._errors import ConfigError, DataError
from poise._random import Key
from poise.train import batch_bounds

Pair = tuple[Any, Tensor]
"""What a model reads, and its targets."""


class Source(ABC):
    """Where batches come from. The order of an epoch is a function of its key."""

    #: Whether batches are as large as a recipe wants them.
    sizes_batches = True

    @abstractmethod
    def num_batches(self, batch_size: int) -> int:
        """Batches of an epoch."""

    @abstractmethod
    def shuffled(self, key: Key, batch_size: int) -> Iterator[Pair]:
        """An epoch for training."""

    @abstractmethod
    def in_order(self, size: int) -> Iterator[Pair]:
        """All rows for a score, `size` at a time where sizes can be chosen."""

    @abstractmethod
    def digest(self) -> str:
        """Differs where the rows do, as far as they are known."""


class _TensorSource(Source):
    """Tensors with the rows on their first axis: no loader in between."""

    def __init__(self, x: Any, y: Tensor, name: str) -> None:
        leaves = [one for one in tree_leaves(x) if isinstance(one, Tensor)]
        rows = {len(one) if one.ndim else None for one in (*leaves, y)}
        if not leaves or len(rows) > 1 or None in rows:
            shapes = ", ".join(str(tuple(one.shape)) for one in (*leaves, y))
            raise DataError(f"x and y need the same rows on their first axis, but the shapes are {shapes}.", where=name)
        if len(y) == 0:
            raise DataError("Zero rows.", where=name, repair="Give at least one.")
        if not all(bool(one.isfinite().all()) for one in (*leaves, y) if one.is_floating_point()):
            raise DataError(
                "Some numbers are not finite.", where=name, repair="Fill in what is missing before the search."
            )
        self.x, self.y = x, y

    def num_batches(self, batch_size: int) -> int:
        return len(batch_bounds(len(self.y), batch_size))

    def shuffled(self, key: Key, batch_size: int) -> Iterator[Pair]:
        order = key.permutation(len(self.y)).to(self.y.device)
        for start, end in batch_bounds(len(self.y), batch_size):
            rows = order[start:end]
            yield tree_map(lambda one, rows=rows: one[rows.to(one.device)], self.x), self.y[rows]

    def in_order(self, size: int) -> Iterator[Pair]:
        for at in range(0, len(self.y), size):
            yield tree_map(lambda one, at=at: one[at : at + size], self.x), self.y[at : at + size]

    def digest(self) -> str:
        found = hashlib.sha256()
        for one in (*tree_leaves(self.x), self.y):
            found.update(repr((tuple(one.shape), one.dtype)).encode())
            found.update(one.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return found.hexdigest()


class _DatasetSource(Source):
    """A map-style dataset, of which each row is an x and a y."""

    def __init__(self, dataset: Dataset[Any], name: str) -> None:
        self.dataset, self.name = dataset, name
        self.num_rows = len(dataset) if isinstance(dataset, Sized) else 0
        if self.num_rows == 0:
            raise DataError("Zero rows.", where=name, repair="Give a dataset with a length, and at least one row.")

    def num_batches(self, batch_size: int) -> int:
        return len(batch_bounds(self.num_rows, batch_size))

    def shuffled(self, key: Key, batch_size: int) -> Iterator[Pair]:
        order = key.permutation(self.num_rows).tolist()
        for start, end in batch_bounds(self.num_rows, batch_size):
            yield self._take(order[start:end])

    def in_order(self, size: int) -> Iterator[Pair]:
        for at in range(0, self.num_rows, size):
            yield self._take(range(at, min(at + size, self.num_rows)))

    def _take(self, rows: Sequence[int]) -> Pair:
        return pair_of(default_collate([self.dataset[row] for row in rows]), self.name)

    def digest(self) -> str:
        return f"{type(self.dataset).__name__} of {self.num_rows} rows"


class _LoaderSource(Source):
    """A loader, with batches and an order of its own."""

    sizes_batches = False

    def __init__(self, loader: DataLoader[Any], name: str) -> None:
        self.loader, self.name = loader, name
        try:
            self.length = len(loader)
        except TypeError as error:
            raise ConfigError(
                "The loader does not say how many batches it has, and schedules span them all.", where=name,
                repair="Give its dataset a __len__.",
            ) from error  # fmt: skip
        if self.length == 0:
            raise DataError("Zero batches.", where=name, repair="Give a loader with at least one.")

    def num_batches(self, batch_size: int) -> int:
        return self.length

    def shuffled(self, key: Key, batch_size: int) -> Iterator[Pair]:
        # Where the loader draws from torch's global generator, whoever calls this has seeded that.
        own = [self.loader.generator, getattr(self.loader.sampler, "generator", None)]
        generators = {id(one): one for one in own if one is not None}.values()
        before = [one.get_state() for one in generators]
        try:
            for one in generators:
                one.manual_seed(key.stream("loader", key.step).seed % 2**63)
            for batch in self.loader:
                yield pair_of(batch, self.name)
        finally:
            for one, state in zip(generators, before, strict=True):
                one.set_state(state)

    def in_order(self, size: int) -> Iterator[Pair]:
        return self.shuffled(Key(0), size)

    def digest(self) -> str:
        return f"{type(self.loader.dataset).__name__} in {self.length} batches"


def source_of(data: Any, name: str) -> Source:
    """Whatever batches can be made of.

    Args:
        data: A pair of tensors (x, y), of which x may also be a tuple or dict of tensors; a map-style dataset; a
            loader.
        name: For errors.

    Raises:
        ConfigError: If it is something else.
        DataError: If it holds no rows, or rows that do not agree.
    """
    if isinstance(data, DataLoader):
        return _LoaderSource(data, name)
    if isinstance(data, TensorDataset) and len(data.tensors) == 2:
        return _TensorSource(data.tensors[0], data.tensors[1], name)
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        return _DatasetSource(data, name)
    if isinstance(data, tuple | list) and len(data) == 2 and isinstance(data[1], Tensor):
        return _TensorSource(data[0], data[1], name)
    raise ConfigError(
        f"`{name}` must be a pair of tensors (x, y), a map-style dataset or a DataLoader, but got "
        f"{type(data).__name__}."
    )


def pair_of(batch: Any, name: str) -> Pair:
    """A batch as x and y.

    Raises:
        DataError: If it is no pair that ends with a tensor.
    """
    if isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[1], Tensor) and batch[1].ndim:
        return batch[0], batch[1]
    raise DataError(
        f"A batch must be a pair (x, y) with a tensor y, but got {type(batch).__name__}.", where=f"`{name}`",
        repair="Let the dataset return a pair, and x be a tuple or dict where the model reads several tensors.",
    )  # fmt: skip
