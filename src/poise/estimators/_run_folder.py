"""The folder of a run: what was asked, what happened, what came out."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import tomli_w
import torch
from filelock import FileLock, Timeout

from poise._errors import ResumeError
from poise.estimators._base import PoiseEstimator
from poise.estimators._bundle import save_bundle
from poise.estimators._result import FitResult
from poise.recipe import Recipe, to_toml
from poise.train import remove_leftovers, to_json, write_atomically

_RESULT = "result.json"
_PACKAGES = ("poise", "torch", "numpy", "scikit-learn", "polars")


class RunFolder:
    """Holds `config.toml`, `checkpoints/` while training, and afterwards `bundle/`, `result.json`, `metrics.jsonl` and
    `environment.json`. One process at a time; the kernel drops the lock when a process dies.

    Args:
        path: Made if missing; None keeps nothing on disk.
        resume: Whether a run that is already there is continued. A process may have been killed before it wrote
            anything, so a folder without a run is not an error.

    Raises:
        ResumeError: If there is a run and `resume` is False, or another process is at work.
    """

    def __init__(self, path: str | Path | None, *, resume: bool) -> None:
        self.path = None if path is None else Path(path)
        self.resume = resume
        self._lock: FileLock | None = None

    @property
    def checkpoints(self) -> Path | None:
        """Where the fleet keeps its states."""
        return self.path and self.path / "checkpoints"

    def __enter__(self) -> Self:
        if self.path is None:
            if self.resume:
                raise ResumeError("There is nothing to resume without a run folder.", repair="Give `out`.")
            return self
        self._check_start(self.path)
        (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.path / "checkpoints" / "lock")
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise ResumeError("Another process is at work here.", where=str(self.path)) from None
        remove_leftovers(self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._lock.release()
        if kind is None and self.checkpoints is not None:
            shutil.rmtree(self.checkpoints)

    def _check_start(self, path: Path) -> None:
        begun = (path / "config.toml").exists()
        if begun and not self.resume:
            raise ResumeError("The folder holds a run.", where=str(path), repair="Resume it, or choose another folder.")

    def write_config(
        self, *, source: str, target: str, seed: int, time_limit: float | None, recipes: Mapping[str, Recipe]
    ) -> None:
        """Write what was asked; on resume, compare it with what was asked then.

        Raises:
            ResumeError: If this is not the run that is in the folder.
        """
        if self.path is None:
            return
        config: dict[str, Any] = {"source": source, "target": target, "seed": seed}
        config |= {} if time_limit is None else {"time_limit": time_limit}
        config["recipes"] = {name: to_toml(recipe) for name, recipe in recipes.items()}
        text = tomli_w.dumps(config, multiline_strings=True).encode()
        path = self.path / "config.toml"
        if path.exists() and path.read_bytes() != text:
            raise ResumeError(
                "The run in this folder was started with other options.",
                where=str(path),
                repair="Give the same options again, or choose another folder.",
            )
        write_atomically(path, text)

    def finished(self) -> FitResult | None:
        """The result, if this run came to its end before."""
        if self.path is None or not (self.path / _RESULT).exists():
            return None
        try:
            return FitResult.from_dict(json.loads((self.path / _RESULT).read_bytes()))
        except (ValueError, KeyError, TypeError) as error:
            raise ResumeError(
                f"The result of this run cannot be read: {error}.",
                where=str(self.path / _RESULT),
                repair="Choose another folder.",
            ) from error

    def environment(self, seed: int) -> dict[str, str]:
        """Versions, processor, threads and seed."""
        return {
            "python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES},
            "processor": platform.processor() or platform.machine(),
            "cores": str(os.cpu_count()),
            "threads": str(torch.get_num_threads()),
            "seed": str(seed),
        }

    def finish(self, result: FitResult, estimator: PoiseEstimator, target: str) -> None:
        """Write bundle, metrics, environment and, last, the result."""
        if self.path is None:
            return
        save_bundle(estimator, self.path / "bundle", target_name=target)
        lines = [to_json({"name": one.name, **asdict(record)}) for one in result.candidates for record in one.history]
        write_atomically(self.path / "metrics.jsonl", b"\n".join(lines) + b"\n")
        write_atomically(self.path / "environment.json", json.dumps(result.environment, indent=2).encode())
        write_atomically(self.path / _RESULT, to_json(asdict(result)))
