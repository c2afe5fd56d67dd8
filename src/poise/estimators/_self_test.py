"""Whether Poise works on this machine."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from poise._errors import PoiseError
from poise.estimators._classifier import PoiseClassifier
from poise.estimators._load import load
from poise.kernels.reference import philox

_PACKAGES = ("poise", "torch", "numpy", "scikit-learn", "polars", "safetensors")
_PHILOX_OF_ZERO = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Args:
        name: What.
        value: What was found.
        ok: Whether it is as it should be.
    """

    name: str
    value: str
    ok: bool = True


def self_test() -> tuple[Check, ...]:
    """Versions, processor and devices, and three trials: random numbers, a small fit, saving and loading.

    Example:
        >>> from poise import self_test
        >>> all(check.ok for check in self_test())
        True
    """
    facts = [Check("python", platform.python_version()), *(Check(name, version(name)) for name in _PACKAGES)]
    facts.append(Check("processor", f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"))
    facts.append(Check("gpu", torch.cuda.get_device_name() if torch.cuda.is_available() else "none; none is needed"))
    trials = {"random numbers": _try_philox, "fit": _try_fit, "save and load": _try_bundle}
    return (*facts, *(_trial(name, attempt) for name, attempt in trials.items()))


def _trial(name: str, attempt: Callable[[], str]) -> Check:
    try:
        return Check(name, attempt())
    except (PoiseError, OSError, ArithmeticError, RuntimeError) as error:
        return Check(name, f"{type(error).__name__}: {error}", ok=False)


def _try_philox() -> str:
    if philox(torch.zeros(4, 1, dtype=torch.int64), (0, 0)).flatten().tolist() != _PHILOX_OF_ZERO:
        raise ArithmeticError("Philox4x32-10 does not give its published numbers")
    return "as published"


def _fitted() -> tuple[PoiseClassifier, np.ndarray]:
    x = np.linspace(-1, 1, 64).reshape(-1, 1)
    return PoiseClassifier(recipe="batchnorm-2015", random_state=0).fit(x, x[:, 0] > 0), x


def _try_fit() -> str:
    model, x = _fitted()
    hits = float((model.predict(x) == (x[:, 0] > 0)).mean())
    if hits < 0.9:
        raise ArithmeticError(f"a separable table is learnt to only {hits:.0%}")
    return f"a separable table is learnt to {hits:.0%}"


def _try_bundle() -> str:
    model, x = _fitted()
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder))
        if not (load(folder).predict_proba(x) == model.predict_proba(x)).all():
            raise ArithmeticError("a loaded network predicts differently")
    return "bit for bit"
