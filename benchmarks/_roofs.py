"""What the machine can do at most, measured in the same run as everything that is held against it."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import torch


def roofs(threads: int) -> dict[str, float]:
    """Float32 matrix products in GFLOP/s and copies in GB/s, by torch on `threads` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    source, target = torch.randn(1 << 24), torch.empty(1 << 24)
    found = {
        "torch_gemm_gflops": 2 * 1024**3 / _seconds(lambda: a @ b) / 1e9,
        "copy_gb_per_s": 2 * source.numel() * 4 / _seconds(lambda: target.copy_(source)) / 1e9,
    }
    torch.set_num_threads(before)
    return found


def _seconds(work) -> float:
    work()
    best = float("inf")
    for _ in range(7):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def describe_machine() -> str:
    """Processor, cores and versions."""
    import numba
    import numpy

    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
        flags = next(line for line in lines if line.startswith("flags"))
        processor += " with AVX-512" if "avx512f" in flags else ""
    except (OSError, StopIteration):
        processor = platform.machine()
    versions = f"torch {torch.__version__}, numba {numba.__version__}, numpy {numpy.__version__}"
    return f"{processor}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"
