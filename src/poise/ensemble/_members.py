"""What predicts, and many such on the same rows, each distinct encoding made once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Protocol

import polars as pl
import torch
from torch import Tensor

from poise._errors import ConfigError
from poise.data import Encoder
from poise.train import Predictor, Task


class Predicts(Protocol):
    """What one network and a whole ensemble have in common."""

    @property
    def task(self) -> Task:
        """What is predicted."""

    @property
    def encoder(self) -> Encoder:
        """Of the table's columns; of an ensemble the first member's, with the schema of all."""

    def predict(self, table: pl.DataFrame) -> Tensor:
        """Class probabilities (N, number of classes), or values (N,) in the target's own units."""


class Members:
    """Networks or ensembles that predict the same thing from the same columns.

    Args:
        all_: At least one.

    Raises:
        ConfigError: If there is none, or two differ in what they predict or in their columns.
    """

    def __init__(self, all_: Sequence[Predicts]) -> None:
        self.all = tuple(all_)
        _check_alike(self.all)
        self._groups: dict[str, list[int]] = {}
        for index, member in enumerate(self.all):
            name = encoder_digest(member.encoder) if isinstance(member, Predictor) else f"member {index}"
            self._groups.setdefault(name, []).append(index)

    def predictions(self, rows: pl.DataFrame, *, of: Sequence[int] | None = None) -> Iterator[tuple[int, Tensor]]:
        """Index and predictions of each member, those with equal encoders one after the other.

        Args:
            rows: Few enough to be predicted at once.
            of: Members that are wanted; None for all.
        """
        wanted = range(len(self.all)) if of is None else of
        for group in self._groups.values():
            members = [index for index in group if index in wanted]
            if members:
                yield from self._of_group(members, rows)

    def _of_group(self, group: Sequence[int], rows: pl.DataFrame) -> Iterator[tuple[int, Tensor]]:
        first = self.all[group[0]]
        if not isinstance(first, Predictor):
            yield group[0], first.predict(rows)
            return
        inputs = first.encoder.transform(rows, dtype=torch.float64)
        for index in group:
            member = self.all[index]
            yield index, member.predict_encoded(inputs) if isinstance(member, Predictor) else member.predict(rows)


def encoder_digest(encoder: Encoder) -> str:
    """SHA-256 of an encoder's state; encoders that make the same tensors of every table have the same one."""
    tensors, plain = encoder.to_state()
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _check_alike(members: Sequence[Predicts]) -> None:
    if not members:
        raise ConfigError("`members` must hold at least one network, but is empty.")
    first = members[0]
    for index, member in enumerate(members):
        if member.task != first.task:
            raise ConfigError(
                f"`members` must all predict the same, but member {index} predicts {member.task} and member 0 "
                f"{first.task}.",
                repair="Average networks that were trained for one target.",
            )
        if member.encoder.schema.to_dict() != first.encoder.schema.to_dict():
            raise ConfigError(
                f"`members` must all read the same columns, but those of member {index} differ from those of member 0.",
                repair="Average networks that were trained on one table with one schema.",
            )
