"""Real architectures, built from configuration without weights, tiny, seeded, with numbers in which errors show."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from poise.surgery._acceleration import _chains, _swap

ROWS = 6


@dataclass(frozen=True, eq=False)
class Entry:
    """A model of the zoo.

    Args:
        name: Of the architecture.
        make: Builds it.
        batch: Makes an example of `ROWS` rows.
        refused: For "apply", "layer_norm", "fold", "recalibrate", "accelerate" or "freeze": a pattern of the error,
            with the name of the module.
        can_copy: Whether `copy.deepcopy` takes it.
    """

    name: str
    make: Callable[[], nn.Module]
    batch: Callable[[], Any]
    refused: Mapping[str, str] = field(default_factory=dict)
    can_copy: bool = True

    def build(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """The model in training mode, with statistics and affine parameters as after a training."""
        made = copy.deepcopy(self._prototype) if self.can_copy else self._make()
        return made.to(dtype).train()

    @functools.cached_property
    def _prototype(self) -> nn.Module:
        return self._make()

    def _make(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            torch.manual_seed(0)
            warnings.simplefilter("ignore")  # advice of other libraries on configurations
            return enliven(self.make())

    def example(self, dtype: torch.dtype = torch.float32) -> Any:
        """The same rows each time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return tree_map(lambda one: one.to(dtype) if is_real(one) else one, self.batch())


def is_real(thing: Any) -> bool:
    """Whether it is a tensor of floating numbers."""
    return isinstance(thing, Tensor) and thing.is_floating_point()


def rows(batch: Any, start: int, stop: int) -> Any:
    """Some rows of a batch."""
    return tree_map(lambda one: one[start:stop] if isinstance(one, Tensor) else one, batch)


@torch.no_grad()
def enliven(model: nn.Module) -> nn.Module:
    """Kernels that keep the size of what they are given, so that outputs depend on inputs; random statistics, scales
    and shifts, so that no normalization is the identity by chance."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd) and "weight" in module._parameters:
            module.weight.normal_(0, (2 / module.weight[0].numel()) ** 0.5)
        for name, parameter in module.named_parameters(recurse=False):
            if "scale" in name or "lambda" in name:  # of whole branches, which begin next to nothing
                parameter.uniform_(0.5, 1)
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
        if "norm" in type(module).__name__.lower():
            for name, parameter in module.named_parameters(recurse=False):
                if name == "weight" and parameter.ndim == 1:
                    parameter.uniform_(0.5, 1.5)
                elif name == "bias" and parameter.ndim == 1:
                    parameter.normal_(0, 0.2)
    return model


def accelerate_at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `poise.accelerate` put its kernels where torch's own are as fast: everything here is tiny."""
    for module, name in (
        (_chains, "SMALLEST"),
        (_chains, "FUSED_FROM"),
        (_chains, "_REROUTED_FROM"),
        (_swap, "SMALLEST"),
    ):
        monkeypatch.setattr(module, name, 1)


def images(size: int = 32, channels: int = 3) -> Callable[[], Tensor]:
    """A maker of images."""
    return lambda: torch.randn(ROWS, channels, size, size)


def reals(*shape: int) -> Callable[[], Tensor]:
    """A maker of rows of numbers."""
    return lambda: torch.randn(ROWS, *shape)


def transformer(kind: str, settings: Mapping[str, Any], *, config: str) -> Callable[[], nn.Module]:
    """A maker of a model of transformers by the names of its class and that of its configuration."""

    def make() -> nn.Module:
        import transformers

        made: nn.Module = getattr(transformers, kind)(getattr(transformers, config)(**settings))
        return made

    return make
