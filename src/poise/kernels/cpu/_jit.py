"""How functions become machine code: once on a machine, then read from a cache."""

from __future__ import annotations

import hashlib
import inspect
import os
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from llvmlite import binding
from numba import config as _config
from numba.extending import intrinsic

from poise._errors import PoiseWarning
from poise.kernels.cpu._linking import PART, WHOLE

# Sums may be reordered, which vector units need. NaN and infinity keep their meaning: they mark a failed training.
_FAST = {"contract", "reassoc", "nsz", "arcp"}
_HERE = Path(__file__).parent

config: Any = _config  # its entries are made at run time
HAS_AVX512 = bool(binding.get_host_cpu_features().get("avx512f", False))
HAS_BFLOAT16 = bool(binding.get_host_cpu_features().get("avx512bf16", False))
VECTOR_BYTES = 64 if HAS_AVX512 else 32


def inner(function: Callable[..., Any]) -> Any:
    """A function that only machine code calls."""
    return _part(function, fastmath=_FAST)


def exact(function: Callable[..., Any]) -> Any:
    """`inner` for functions whose rounding is part of the method; only fused multiply-add is allowed."""
    return _part(function, fastmath={"contract"}, forceinline=True)


def rounded(function: Callable[..., Any]) -> Any:
    """`inner` for functions each of whose operations rounds by itself."""
    # Said aloud, since a function whose flags are not said takes those of its caller.
    return _part(function, fastmath=False, forceinline=True)


def _part(function: Callable[..., Any], **options: Any) -> Any:
    # A form for Python takes longer to compile than the function, where arguments are tuples of many arrays.
    alone = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "pipeline_class": PART}
    return numba.njit(function, nogil=True, error_model="numpy", **alone, **options)


def entry(function: Callable[..., Any]) -> Any:
    """A function that Python calls: compiled at its first use on a machine and kept on disk, without the GIL."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": _FAST, "pipeline_class": WHOLE}
    before = config.CACHE_DIR
    config.CACHE_DIR = str(_cache_folder(Path(inspect.getfile(function)).parent))
    try:
        return numba.njit(function, cache=True, **options)
    except RuntimeError:  # Numba found no folder that it can write to
        _warn_of_no_cache()
        return numba.njit(function, **options)
    finally:
        config.CACHE_DIR = before


def instruction(function: Callable[..., Any]) -> Any:
    """A function that writes its own machine code; its arguments are types, and callers give values for them."""
    return intrinsic(function)


def is_compiled(function: Any) -> bool:
    """Whether an `entry` needs no compiling: it was called before, or the cache on disk holds it."""
    if function.signatures:
        return True
    cache = getattr(function, "_cache", None)
    folder = Path(cache.cache_path) if cache is not None else None
    return folder is not None and any(folder.glob(f"*{function.__name__}*.nbc"))


@cache
def _cache_folder(caller: Path) -> Path:
    """A folder of its own for every state of the source: Numba notices a change of a function, not of what it calls."""
    digest = hashlib.sha256((_HERE.parent / "reference.py").read_bytes())
    for folder in sorted({_HERE, caller}):
        for path in sorted(folder.glob("*.py")):
            digest.update(path.read_bytes())
    root = os.environ.get("NUMBA_CACHE_DIR") or _user_cache()
    return Path(root) / "poise" / digest.hexdigest()[:16]


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home()))
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


@cache
def _warn_of_no_cache() -> None:
    warnings.warn(
        "No folder can be written to keep compiled code, so every process compiles it anew, which takes some seconds. "
        "Let NUMBA_CACHE_DIR name a folder that can be written.",
        PoiseWarning,
        stacklevel=2,
    )
