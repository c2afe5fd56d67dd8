"""All of the zoo."""

from __future__ import annotations

from tests.contract._zoo import Entry
from tests.contract._zoo_plain import PLAIN
from tests.contract._zoo_sequences import SEQUENCES
from tests.contract._zoo_torch import TORCH
from tests.contract._zoo_vision import VISION

ZOO: tuple[Entry, ...] = (*PLAIN, *TORCH, *VISION, *SEQUENCES)
