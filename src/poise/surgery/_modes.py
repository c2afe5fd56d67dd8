"""Training and eval flags, module by module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def modes(model: nn.Module, *, training: bool | None = None) -> Iterator[None]:
    """Within it modes may change at will; after it every module of `model` has its own flag again.

    `model.train()` after an evaluation turns on what was off on purpose, such as a frozen normalization; this does not.
    Modules that were added meanwhile keep what they have.

    Args:
        model: Whose modules keep their flags.
        training: False to evaluate within it, True to train, None to leave all as it is.

    Example:
        >>> model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2).eval())
        >>> with modes(model, training=False):
        ...     print([layer.training for layer in model])
        [False, False]
        >>> [layer.training for layer in model]
        [True, False]
    """
    flags = {module: module.training for module in model.modules()}
    try:
        if training is not None:
            # Not `train`, which a frozen layer may refuse.
            for module in flags:
                module.training = training
        yield
    finally:
        for module, flag in flags.items():
            module.training = flag
