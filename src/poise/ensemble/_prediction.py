"""What many passes say together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from poise._checks import Interval, check_real
from poise._errors import ConfigError
from poise.functional.moments import Moments, merge

Kind = Literal["regression", "classification"]


@dataclass(frozen=True, eq=False)
class MCPrediction:
    """Mean and spread of a network's predictions over its dropout masks, with the error of having drawn only some.

    standard_error = sqrt(variance / samples). With class probabilities p_s of pass s: entropy H(mean of p_s), of which
    mutual_information = H(mean of p_s) - mean of H(p_s) is due to the weights, H(p) = -Σ p ln p.

    Args:
        mean: Over the passes: of the outputs, or of class probabilities.
        variance: Unbiased, over the passes.
        standard_error: Of `mean`; zero where it is exact.
        entropy: Of the predicted class, in nats; None for regression.
        mutual_information: Of class and weights, in nats, ≥ 0; None for regression.
        num_samples: Passes that were made; 0 where mean and variance are exact.
        mask: "shared" where all rows of a pass had the same mask, "rows" where each had its own, "exact" for none.

    Shape:
        mean, variance, standard_error: as the network's output. entropy, mutual_information: without the class axis.

    Example:
        >>> one = MCPrediction(*torch.tensor([[0.5], [0.2], [0.1]]), None, None, 20, "rows")
        >>> one.samples_for(0.02)
        500

    Reference: Gal and Ghahramani, "Dropout as a Bayesian approximation", ICML 2016. Houlsby et al., "Bayesian active
    learning for classification and preference learning", 2011.
    """

    mean: Tensor
    variance: Tensor
    standard_error: Tensor
    entropy: Tensor | None
    mutual_information: Tensor | None
    num_samples: int
    mask: Literal["shared", "rows", "exact"]

    def samples_for(self, error: float) -> int:
        """How many passes bring the standard error of every mean to `error` or below, by the variance found.

        Args:
            error: In units of `mean`, > 0.

        Raises:
            ConfigError: If `error` is not above zero.
        """
        check_real("error", error, Interval(0, low_open=True))
        largest = float(self.variance.max()) if self.variance.numel() else 0.0
        # A float32 variance may lie above the exact one by some units of its last place.
        return 0 if self.mask == "exact" else max(2, math.ceil(largest / error**2 * (1 - 1e-6)))


class Gathered:
    """Moments of predictions, in float64, and mean entropies, of passes that come in parts.

    Args:
        kind: "classification" turns outputs into probabilities first.
        class_dim: Axis of the classes in an output; of size 1 for the logit of the second of two classes.
    """

    def __init__(self, kind: Kind, class_dim: int) -> None:
        self._kind, self._dim = kind, class_dim
        self._parts: list[Moments] = []
        self._entropies: Tensor | None = None
        self._dtype = torch.float32

    def add(self, outputs: Tensor) -> None:
        """Take more passes, (S, ...)."""
        self._dtype = torch.promote_types(outputs.dtype, torch.float32)
        values = outputs.to(torch.float64)
        if self._kind == "classification":
            values = self._probabilities(values)
            entropies = self._entropy(values).sum(0)
            self._entropies = entropies if self._entropies is None else self._entropies + entropies
        mean = values.mean(0)
        var = (values - mean).square_().mean(0)  # `var_mean` warns of no rows
        part = Moments(torch.tensor(float(len(values)), device=values.device), mean, var)
        self._parts = [merge(self._parts[0], part)] if self._parts else [part]

    def prediction(self, mask: Literal["shared", "rows"]) -> MCPrediction:
        """What the passes say."""
        count, mean, var = self._parts[0]
        variance = var * (count / (count - 1))
        entropy = information = None
        if self._entropies is not None:
            entropy = self._entropy(mean)
            information = (entropy - self._entropies / count).clamp(min=0).to(self._dtype)
            entropy = entropy.to(self._dtype)
        error = torch.sqrt(variance / count)
        mean, variance, error = (one.to(self._dtype) for one in (mean, variance, error))
        return MCPrediction(mean, variance, error, entropy, information, int(count), mask)

    def _probabilities(self, logits: Tensor) -> Tensor:
        axes = logits.ndim - 1
        if axes < 2 or not -axes <= self._dim < axes:
            raise ConfigError(
                f"`class_dim` must be an axis of the output beside its rows, but got class_dim={self._dim} for an "
                f"output of shape {tuple(logits.shape[1:])}.",
                repair="Give class_dim=, or output= that makes the classes an axis.",
            )
        # From the end, so that it means the same with and without the axis of the passes.
        self._dim -= axes if self._dim >= 0 else 0
        return torch.sigmoid(logits) if logits.shape[self._dim] == 1 else torch.softmax(logits, self._dim)

    def _entropy(self, probabilities: Tensor) -> Tensor:
        entropies: Tensor = torch.special.entr(probabilities)
        if probabilities.shape[self._dim] == 1:
            entropies = entropies + torch.special.entr(1 - probabilities)
        return entropies.sum(self._dim)
