"""Whether a forward pass is the first one of its batch."""

from __future__ import annotations

import torch


def is_repeated() -> bool:
    """Whether backward runs, so that a forward pass is one that gradient checkpointing repeats."""
    # Private in torch, whose own checkpointing asks the same.
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
