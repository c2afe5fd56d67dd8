"""What the compiled engine cannot do."""

from __future__ import annotations

import torch

from poise.kernels.cpu._activation import CODES
from poise.methods import METHODS, AverageMethod, LabelSmoothing, StopMethod
from poise.train import Plan

DTYPES = (torch.float32, torch.float64)


class Unsupported(Exception):  # noqa: N818 - the engine's own promise: `unsupported` has let nothing of this through
    """A layer or method that has no machine code."""


def unsupported(plan: Plan) -> str:
    """The method, activation or dtype of `plan` that has no machine code, by name; "" if all have.

    Methods that average or stop run between steps, in Python, so any of them will do. A method that derives from a
    known one is unknown: it may have changed anything.
    """
    if plan.dtype not in DTYPES:
        return f"dtype {str(plan.dtype).removeprefix('torch.')}"
    if plan.recipe.network.activation not in CODES:
        return f"activation {plan.recipe.network.activation}"
    for method in plan.recipe.methods:
        if isinstance(method, AverageMethod | StopMethod):
            continue
        if METHODS.get(type(method).__name__) is not type(method):
            return f"method {type(method).__name__}"
        if isinstance(method, LabelSmoothing) and plan.task.neutral is None:
            return "method LabelSmoothing for a target that is a number"
    return ""
