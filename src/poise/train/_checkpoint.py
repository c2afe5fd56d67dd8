"""States on disk: safetensors for tensors, JSON for the rest, each file written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from poise._errors import ResumeError
from poise.train._state import State

T = TypeVar("T")
_TEMPORARY = re.compile(r"\.tmp(\d+)$")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader or a crash sees the old content or the new, never a part."""
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that processes left behind when they were killed; those of living ones stay."""
    for path in folder.rglob("*.tmp*"):
        match = _TEMPORARY.search(path.name)
        if match and not Path(f"/proc/{match[1]}").exists():
            path.unlink(missing_ok=True)


def pack_tensors(tensors: dict[str, Tensor]) -> bytes:
    """The safetensors form of `tensors`."""
    return save({name: tensor.contiguous() for name, tensor in tensors.items()})


def to_json(value: Any) -> bytes:
    """Canonical JSON: sorted keys, no spaces, no NaN; equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _digest(tensors: bytes, numbers: Any) -> str:
    """SHA-256 of both halves of a state, so that a damaged number is found like a damaged tensor."""
    digest = hashlib.sha256(tensors)
    digest.update(to_json(numbers))
    return digest.hexdigest()


def save_state(state: State, folder: Path, name: str) -> None:
    """Write a state, so that `load_state` finds it.

    Args:
        state: What to keep.
        folder: Exists.
        name: Of the checkpoint within the folder.
    """
    write_checkpoint(state.tensors, state.numbers(), folder, name)


def write_checkpoint(parts: dict[str, Tensor], numbers: Any, folder: Path, name: str) -> None:
    """Write `name.json` and the tensor file it points to; the JSON comes last and makes the checkpoint valid.

    Args:
        parts: Tensors to keep.
        numbers: What else to keep, as JSON takes it.
        folder: Exists.
        name: Of the checkpoint within the folder.
    """
    tensors = pack_tensors(parts)
    digest = _digest(tensors, numbers)
    tensor_file = folder / f"{name}-{digest[:16]}.safetensors"
    write_atomically(tensor_file, tensors)
    content = {"numbers": numbers, "tensors": tensor_file.name, "sha256": digest}
    write_atomically(folder / f"{name}.json", to_json(content))
    _remove_superseded(folder, name, tensor_file)


def _remove_superseded(folder: Path, name: str, tensor_file: Path) -> None:
    """Remove tensor files that no checkpoint points to any more."""
    for old in folder.glob(f"{name}-*.safetensors"):
        if old != tensor_file:
            old.unlink(missing_ok=True)


def load_state(folder: Path, name: str) -> State | None:
    """The state saved under `name`, or None where there is none.

    Raises:
        ResumeError: If the checkpoint is damaged.
    """
    return read_checkpoint(folder, name, State.from_numbers)


def read_checkpoint(folder: Path, name: str, make: Callable[[dict[str, Tensor], Any], T]) -> T | None:
    """What `make` makes of the tensors and the numbers saved under `name`, or None where there are none.

    Raises:
        ResumeError: If the checkpoint is damaged.
    """
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_bytes())
        tensor_file = folder / Path(content["tensors"]).name
        tensors = tensor_file.read_bytes()
        if _digest(tensors, content["numbers"]) != content["sha256"]:
            raise ValueError("it does not match its digest")
        # A process that was killed right after it had written this one may have left its predecessor.
        _remove_superseded(folder, name, tensor_file)
        return make(load(tensors), content["numbers"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ResumeError(
            f"The checkpoint cannot be read: {error}.", where=str(path), repair="Start the run anew in an empty folder."
        ) from error
