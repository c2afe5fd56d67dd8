"""Settings of all tests: reproducible property tests, and one thread, so that test processes share the cores."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)

# A machine under load is slow now and then; a deadline would fail tests that are right.
settings.register_profile(
    "pr", max_examples=50, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("pr")
