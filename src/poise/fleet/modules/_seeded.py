"""What a user's own code draws from torch's global generator, made repeatable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from poise._random import Key


@contextmanager
def seeded(key: Key) -> Iterator[None]:
    """Within it torch's global generators draw what `key` names; afterwards they are as they were."""
    seed = key.seed % 2**63
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed_all(seed)
        yield
