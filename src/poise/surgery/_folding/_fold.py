"""Batch normalizations that disappear into the kernels next to them, wherever they stand in the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from poise._checks import Interval, check_real
from poise._errors import DataError, SurgeryError
from poise.surgery._edit import check_editable, check_outputs, eval_outputs
from poise.surgery._folding._fold_plan import FoldPlan
from poise.surgery._folding._folder import Folder
from poise.surgery._graph._trace import record
from poise.surgery._ready import check_example, check_materialized, copy_of, doubled, example_fails

# What rounding may do: the sums are the same in exact arithmetic.
_ROUNDINGS = 2  # times its own rounding that a model may be off where that is more than the tolerance
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def fold(model: nn.Module, example: Any, *, tolerance: float | None = None) -> nn.Module:
    """A copy of `model` for inference, without batch normalization and dropout where the graph allows.

    In eval mode a batch normalization is y = s · x + t for each channel, s = weight / sqrt(running_var + eps),
    t = bias - running_mean · s. A kernel before it takes s and t in: W' = s · W, b' = s · b + t. One after it takes
    them in as W' = W · s, b' = b + W · t, which for a convolution that pads with zeros needs t = 0. Kernels are linear
    layers, convolutions and transposed convolutions with any groups; reshaping, transposing and dropout may stand
    between. A layer that is called several times is folded if that is right for all its calls. Products are made in
    float64. What cannot be folded stays and computes what it did; `fold_plan` names it with the reason.

    Args:
        model: Any. It is not touched.
        example: A batch, as for `poise.recalibrate`: a tensor, or a tuple, list or dict of `forward`'s arguments. The
            graph is that of this batch.
        tolerance: Largest difference of outputs for the example, relative to their largest magnitude, ≥ 0. None for
            1e-12 in float64, 1e-5 in float32, 1e-2 in float16 and 5e-2 in bfloat16, of the coarsest that occurs; or,
            where the model itself rounds by more, twice that, measured against it in float64.

    Returns:
        The folded copy in eval mode.

    Raises:
        ConfigError: If the model is on the meta device, lazy, compiled, scripted or wrapped, or a setting is wrong.
        DataError: If the example is empty or the model fails on it.
        SurgeryError: If the model cannot be copied, or the outputs of the folded one differ.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2))
        >>> fold(model, torch.randn(2, 3, 5, 5))[1:]
        Sequential(
          (1): Identity()
          (2): ReLU()
          (3): Identity()
        )

    Reference: Jacob et al., "Quantization and training of neural networks", CVPR 2018 (section 3.2).
    """
    return _fold(model, example, tolerance)[0]


def fold_plan(model: nn.Module, example: Any, *, tolerance: float | None = None) -> FoldPlan:
    """What `fold` does with each batch normalization and dropout of `model`, and why it leaves what it leaves.

    Args:
        model: Any. It is not touched.
        example: As for `fold`.
        tolerance: As for `fold`.

    Raises:
        ConfigError: As for `fold`.
        DataError: As for `fold`.
        SurgeryError: As for `fold`.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 4), nn.Dropout())
        >>> print(fold_plan(model, torch.randn(2, 4)))
        3  Dropout      removed  does nothing in eval mode
        0  BatchNorm1d  left     no kernel before it; ReLU takes what it returns
    """
    return _fold(model, example, tolerance)[1]


def _fold(model: nn.Module, example: Any, tolerance: float | None) -> tuple[nn.Module, FoldPlan]:
    check_editable(model)
    if tolerance is not None:
        check_real("tolerance", tolerance, Interval(0))
    check_materialized(model)
    check_example(example)
    folded = copy_of(model).eval()
    try:
        before = eval_outputs(folded, example)
        graph = record(folded, example)
    except Exception as error:  # whatever a foreign model raises
        raise example_fails(model, error) from error
    if not before:
        raise DataError("The model returns no tensor for the example.", repair="Give a model that returns tensors.")
    plan = Folder(folded, graph).run()
    bound = _tolerance([*before, *model.parameters()]) if tolerance is None else tolerance
    try:
        after = eval_outputs(folded, example)
    except Exception as error:  # code that looks at its own layers and misses one
        raise SurgeryError(
            f"The folded model fails on the example: {type(error).__name__}: {error} Nothing was changed.",
            repair="The model's own code needs a layer that was folded.",
        ) from error
    try:
        check_outputs(before, after, bound)
    except SurgeryError as error:
        own, made = _roundings(model, example, before, after)
        if tolerance is not None or not made <= _ROUNDINGS * own:
            raise _differs(own, made) from error
    return folded, plan


def _roundings(
    model: nn.Module, example: Any, before: Sequence[Tensor], after: Sequence[Tensor]
) -> tuple[float, float]:
    """How far the outputs of the model and of the folded one are from those in float64, relative to the largest."""
    exact = eval_outputs(copy_of(model).double(), doubled(example))
    own, made = (
        max(
            float((one.double() - right).abs().max() / right.abs().max().clamp(min=1e-300))
            for one, right in zip(outputs, exact, strict=True)
            if right.is_floating_point() and right.numel()
        )
        for outputs in (before, after)
    )
    return own, made


def _differs(own: float, made: float) -> SurgeryError:
    return SurgeryError(
        f"Outputs in eval mode would be off by {made:.2g} of the largest, those of the model itself are by {own:.2g}. "
        "Nothing was changed.",
        repair="Give tolerance=, if that is small enough for you, or fold the model in float64.",
    )


def _tolerance(tensors: Sequence[Tensor]) -> float:
    return max((TOLERANCES[one.dtype] for one in tensors if one.dtype in TOLERANCES), default=0.0)
