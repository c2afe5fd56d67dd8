"""Plans of one structure as stacked tensors, through `torch.func`: any torch module, on a CPU or a GPU.

`Stack` lays modules side by side; `StackedEngine` trains plans in one.
"""

from poise.fleet.stacked._engine import StackedEngine
from poise.fleet.stacked._stack import Stack

__all__ = ["Stack", "StackedEngine"]
