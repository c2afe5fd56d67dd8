"""An average of the weights over time, kept as tensors beside the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from poise._errors import ConfigError
from poise.methods import AverageMethod, Clock


class Average:
    """average ← average + c · (weights - average) after every step, c given by a method.

    Args:
        method: Says c.
    """

    def __init__(self, method: AverageMethod) -> None:
        self.method = method
        self.tensors: dict[str, Tensor] = {}
        self.has_begun = False

    @torch.no_grad()
    def begin(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights before the first step, as far as they are not known yet."""
        for name, weight in weights.items():
            if name not in self.tensors:
                # In half precision an average would stand still: the change is below the last digit.
                self.tensors[name] = weight.detach().to(torch.promote_types(weight.dtype, torch.float32), copy=True)

    @torch.no_grad()
    def move(self, weights: Mapping[str, Tensor], clock: Clock) -> None:
        """Take the weights after a step.

        Args:
            weights: As for `begin`.
            clock: Which step it was.
        """
        rate = self.method.at(clock.progress).rate(clock)
        if rate:
            self.has_begun = True
            for name, weight in weights.items():
                self.tensors[name].lerp_(weight.detach().to(self.tensors[name].dtype), rate)

    @torch.no_grad()
    def write(self, weights: Mapping[str, Tensor]) -> bool:
        """Let the average be the weights, and begin anew; whether there was one."""
        if not self.has_begun:
            return False
        for name, weight in weights.items():
            weight.copy_(self.tensors[name])
        self.tensors, self.has_begun = {}, False
        return True

    def state_dict(self) -> dict[str, Any]:
        """Where it stands."""
        return {"tensors": {name: one.clone() for name, one in self.tensors.items()}, "has_begun": self.has_begun}

    def load_state_dict(self, state: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        """Go on from `state`.

        Args:
            state: Of `state_dict`.
            weights: Of the model.

        Raises:
            ConfigError: If it is of another model.
        """
        shapes = {name: one.shape for name, one in state["tensors"].items()}
        if shapes and shapes != {name: weights[name].shape for name in shapes if name in weights}:
            raise ConfigError("The state holds an average of the weights of another model.", where="load_state_dict")
        self.tensors = {name: one.to(weights[name].device, copy=True) for name, one in state["tensors"].items()}
        self.has_begun = bool(state["has_begun"])
