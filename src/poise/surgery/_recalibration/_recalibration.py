"""How far running statistics were from the truth."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from poise.functional.population import Population


@dataclass(frozen=True)
class LayerShift:
    """How far a layer's old running statistics were off. Over its channels, with eps added to all variances:

        mean_distance = max abs(old mean - mean) / sqrt(var)
        var_ratio     = geometric mean of old var / var
        var_factor    = max of max(old var / var, var / old var)

    0, 1 and 1 say that they were right.

    Args:
        path: Of the layer, with the domain for one that keeps several.
        count: Values of each channel that were measured.
        calls: Most calls of the layer in one batch; the values of all are pooled.
        mean_distance: See above, ≥ 0, in standard deviations.
        var_ratio: See above, > 0; above 1, the old variance was too large.
        var_factor: See above, ≥ 1.

    Example:
        >>> import torch
        >>> exact = Population.of(torch.tensor([[1.0], [3.0]]))
        >>> LayerShift.between("norm", 1, exact, torch.tensor([0.0]), torch.tensor([4.0]), eps=0.0)
        LayerShift(path='norm', count=2, calls=1, mean_distance=2.0, var_ratio=4.0, var_factor=4.0)
    """

    path: str
    count: int
    calls: int
    mean_distance: float
    var_ratio: float
    var_factor: float

    @classmethod
    def between(cls, path: str, calls: int, exact: Population, mean: Tensor, var: Tensor, *, eps: float) -> LayerShift:
        """The old `mean` and `var` against the exact ones."""
        exact = exact.to("cpu")
        old, new = var.cpu().double() + eps, exact.var + eps
        distance = ((mean.cpu().double() - exact.mean).abs() / new.sqrt()).max()
        logs = (old / new).log()
        return cls(
            path, exact.count, calls, float(distance), float(logs.mean().exp()), float(logs.abs().max().exp())
        )  # fmt: skip


@dataclass(frozen=True)
class Recalibration:
    """What `recalibrate` did. Printed, it is a table.

    Args:
        layers: In order of execution.
        left: Path of each normalization that stayed as it is, and why.

    Example:
        >>> print(Recalibration((LayerShift("norm", 64, 1, 0.25, 1.5, 2.0),), {"head": "was never reached"}))
        layer  values  mean off by, std  old / new variance  largest factor
        norm       64             0.250                1.50            2.00
        head stays as it is: was never reached.
    """

    layers: tuple[LayerShift, ...]
    left: dict[str, str]

    def __str__(self) -> str:
        if not self.layers and not self.left:
            return "There is no batch normalization."
        rows = [("layer", "values", "mean off by, std", "old / new variance", "largest factor")] if self.layers else []
        for one in self.layers:
            numbers = (f"{one.mean_distance:.3f}", f"{one.var_ratio:.2f}", f"{one.var_factor:.2f}")
            rows.append((one.path or "(network)", f"{one.count}", *numbers))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        ]
        lines += [f"{path or '(network)'} stays as it is: {reason}." for path, reason in self.left.items()]
        return "\n".join(lines)
