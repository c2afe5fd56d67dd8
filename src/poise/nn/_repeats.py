"""Which of the passes through a layer are repetitions by gradient checkpointing."""

from __future__ import annotations

import torch

from poise.nn._repeated import is_repeated

_REMEMBERED = 4096


class Repeats:
    """Tells the passes of one layer apart.

    `torch.utils.checkpoint` runs a part of a network again in backward, in an order that no counter can follow, but
    sets torch's generator to what it was before (`preserve_rng_state`, its default). So each pass that may be repeated
    draws a number there, by which a repetition is known.
    """

    def __init__(self) -> None:
        self._steps: dict[int, int] = {}

    def step_of_pass(self, step: int) -> int:
        """The step that this pass had when it ran first; `step` for a new one.

        Args:
            step: Of the next new pass.
        """
        if not _may_be_repeated():
            return step
        mark = int(torch.randint(2**62, ()).item())
        if mark not in self._steps and len(self._steps) >= _REMEMBERED:
            del self._steps[next(iter(self._steps))]
        return self._steps.setdefault(mark, step)


def _may_be_repeated() -> bool:
    """Whether this pass is checkpointed, or repeats one that was."""
    if torch.compiler.is_compiling():
        return False
    # Private in torch, whose checkpointing has no public mark. It either saves no tensors, or hooks into saving them.
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return hooks is not None or not torch.is_grad_enabled() or is_repeated()
