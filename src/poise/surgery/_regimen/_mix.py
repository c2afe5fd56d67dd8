"""Batch methods on a user's own tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from poise._errors import ConfigError, DataError
from poise._random import Key
from poise.data import Inputs
from poise.methods import Batch, BatchMethod


def mix(
    methods: Sequence[BatchMethod], x: Any, y: Tensor | None, key: Key, *, num_classes: int | None
) -> tuple[Any, Tensor | None]:
    """The batch after all `methods`; class indices become probabilities only if a method mixes targets.

    Args:
        methods: At the strengths of this step.
        x: A tensor, or a list, tuple or dict of tensors, with the rows on their first axis.
        y: Targets, class indices or floating; None for none.
        key: Names the random numbers.
        num_classes: Needed where class indices are mixed.

    Raises:
        ConfigError: If class indices are mixed and the number of classes is not known.
        DataError: If there is nothing to change, or rows do not agree.
    """
    leaves, structure = tree_flatten(x)
    places = [index for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.dtype != torch.bool]
    _check_rows([leaves[index] for index in places], y)
    inputs = _Joined([leaves[index] for index in places])
    targets = _as_targets(y, num_classes, like=inputs.like)
    batch = Batch(inputs.inputs, targets, torch.ones(len(targets), device=targets.device))
    for number, method in enumerate(methods):
        batch = method.transform(batch, key.stream(type(method).__name__, number))
    for index, made in zip(places, inputs.split(batch.inputs), strict=True):
        leaves[index] = made
    mixed = batch.targets is not targets
    if mixed and y is not None and not y.is_floating_point() and num_classes is None:
        raise ConfigError(
            "Targets are class indices, and a method mixes them, but the number of classes is not known.",
            where="regimen.batch", repair="Give example= or num_classes= to `poise.apply`.",
        )  # fmt: skip
    return tree_unflatten(leaves, structure), batch.targets if mixed and y is not None else y


class _Joined:
    """Tensors as one floating and one integer part; a single tensor is not copied."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self.shapes = [one.shape for one in tensors]
        self.real = [one.is_floating_point() for one in tensors]
        self.like = next((one for one in tensors if one.is_floating_point()), tensors[0])
        real = [one for one in tensors if one.is_floating_point()]
        whole = [one for one in tensors if not one.is_floating_point()]
        self._single = len(tensors) == 1
        self.inputs = Inputs(self._join(real, self.like.dtype), self._join(whole, torch.int64))

    def _join(self, tensors: list[Tensor], dtype: torch.dtype) -> Tensor:
        if not tensors:
            return torch.zeros(self.shapes[0][0], 0, dtype=dtype, device=self.like.device)
        return tensors[0] if self._single else torch.cat([one.flatten(1) for one in tensors], dim=1)

    def split(self, inputs: Inputs) -> list[Tensor]:
        """The tensors again, in their own shapes."""
        if self._single:
            return [inputs.numeric if self.real[0] else inputs.categorical]
        parts = {True: inputs.numeric, False: inputs.categorical}
        made = []
        for shape, real in zip(self.shapes, self.real, strict=True):
            width = shape[1:].numel()
            made.append(parts[real][:, :width].reshape(shape))
            parts[real] = parts[real][:, width:]
        return made


def _check_rows(tensors: list[Tensor], y: Tensor | None) -> None:
    if not tensors:
        raise DataError("The batch holds no numbers to change.", where="regimen.batch")
    rows = {one.shape[0] if one.ndim else None for one in (*tensors, *([] if y is None else [y]))}
    if len(rows) > 1 or None in rows:
        found = sorted(str(tuple(one.shape)) for one in (*tensors, *([] if y is None else [y])))
        raise DataError(
            f"All tensors of a batch need the rows on their first axis, but the shapes are {', '.join(found)}.",
            where="regimen.batch", repair="Give only what is to be changed.",
        )  # fmt: skip


def _as_targets(y: Tensor | None, num_classes: int | None, *, like: Tensor) -> Tensor:
    """Floating targets; where the number of classes is needed and not known, codes that only show if they are mixed."""
    dtype = like.dtype if like.is_floating_point() else torch.float32
    if y is None:
        return torch.zeros(like.shape[0], 0, dtype=dtype, device=like.device)
    if y.is_floating_point():
        return y
    if num_classes is None or num_classes == 1:
        return y.to(dtype)
    if int(y.min()) < 0 or int(y.max()) >= num_classes:
        raise DataError(
            f"Class indices must be in [0, {num_classes - 1}], but are in [{int(y.min())}, {int(y.max())}].",
            where="regimen.batch", repair="Leave out rows without a class, or mix before they are padded.",
        )  # fmt: skip
    return torch.nn.functional.one_hot(y.long(), num_classes).movedim(-1, 1).to(dtype)
