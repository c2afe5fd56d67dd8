"""The folder of a run: what was asked, where it stands, what came out."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import tomli_w
import torch
from filelock import FileLock, Timeout

from poise._errors import ResumeError
from poise.train import remove_leftovers, to_json, write_atomically

T = TypeVar("T")
_RESULT = "result.json"
_PACKAGES = ("poise", "torch", "numpy", "scikit-learn", "polars")


class RunFolder:
    """Holds `config.toml`, `checkpoints/` while training, and afterwards `result.json`. One process at a time; the
    kernel drops the lock when a process dies.

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

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write what was asked; on resume, compare it with what was asked then.

        Raises:
            ResumeError: If this is not the run that is in the folder.
        """
        if self.path is None:
            return
        text = tomli_w.dumps(config, multiline_strings=True).encode()
        path = self.path / "config.toml"
        if path.exists() and path.read_bytes() != text:
            raise ResumeError(
                "The run in this folder was started with other options.",
                where=str(path),
                repair="Give the same options again, or choose another folder.",
            )
        write_atomically(path, text)

    def read_result(self, make: Callable[[dict[str, Any]], T]) -> T | None:
        """What `make` makes of the result, if this run came to its end before.

        Raises:
            ResumeError: If it cannot be read.
        """
        if self.path is None or not (self.path / _RESULT).exists():
            return None
        try:
            return make(json.loads((self.path / _RESULT).read_bytes()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ResumeError(
                f"The result of this run cannot be read: {error}.",
                where=str(self.path / _RESULT),
                repair="Choose another folder.",
            ) from error

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write the result; it comes last and says that the run came to its end."""
        if self.path is not None:
            write_atomically(self.path / _RESULT, to_json(result))


def environment(seed: int) -> dict[str, str]:
    """Versions, processor, threads, precision of products and seed."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "processor": platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "seed": str(seed),
    }
