"""A fitted network or ensemble on disk: a folder of safetensors and JSON, with a SHA-256 manifest over every member."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError

from poise._errors import BundleError, PoiseError
from poise.ensemble import Predicts
from poise.estimators._served import pack
from poise.recipe import Recipe, to_toml
from poise.train import Epoch, pack_tensors, remove_leftovers, to_json, write_atomically

FORMAT = 2
TENSORS, MODEL = "weights.safetensors", "model.json"
_MANIFEST = "manifest.json"


class Fitted(Protocol):
    """What a bundle keeps of an estimator; classes and feature names only where it has them."""

    predictor_: Predicts
    recipe_: Recipe
    chosen_: str
    history_: tuple[Epoch, ...]
    n_features_in_: int


def save_bundle(estimator: Fitted, folder: Path, *, target_name: str = "") -> None:
    """Write `estimator` to `folder`; the manifest comes last and makes the bundle valid."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    tensors, served = pack(estimator.predictor_)
    model = {**_describe(estimator, target_name), "served": served}
    members = {TENSORS: pack_tensors(tensors), MODEL: to_json(model)}
    for name, content in members.items():
        write_atomically(folder / name, content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in members.items()}
    write_atomically(folder / _MANIFEST, to_json({"format": FORMAT, "sha256": digests}))


@contextmanager
def refusing_damage(folder: Path) -> Iterator[None]:
    """Whatever goes wrong in reading the bundle in `folder` becomes a BundleError."""
    try:
        yield
    except BundleError:
        raise
    except (
        PoiseError,
        OSError,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        RuntimeError,
        SafetensorError,
    ) as error:
        raise _damaged(folder, str(error) or type(error).__name__) from error


def _damaged(folder: Path, why: str) -> BundleError:
    repair = "Copy the run again from where it was made, or fit anew."
    return BundleError(f"The bundle cannot be trusted: {why}.", where=f"folder {str(folder)!r}", repair=repair)


def verified_members(folder: Path) -> dict[str, bytes]:
    """The files of the bundle by name, after each was found to be what was written.

    Raises:
        BundleError: If anything is missing, added, changed by a single bit, or of another format version.
    """
    if not (folder / _MANIFEST).is_file():
        raise BundleError(
            f"There is no bundle here: {_MANIFEST} is missing.",
            where=f"folder {str(folder)!r}",
            repair="Give the folder that `poise fit --out` or `save` wrote.",
        )
    raw = (folder / _MANIFEST).read_bytes()
    manifest = json.loads(raw)
    members = {name: (folder / name).read_bytes() for name in (TENSORS, MODEL)}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in members.items()}
    if isinstance(manifest, dict) and manifest.get("format", FORMAT) != FORMAT:
        raise _damaged(folder, f"its format is {manifest['format']!r}, this Poise reads {FORMAT}")
    # Compared as bytes: the manifest has one valid spelling, so that no bit of it is free.
    if raw != to_json({"format": FORMAT, "sha256": digests}):
        changed = [name for name in members if manifest.get("sha256", {}).get(name) != digests[name]]
        raise _damaged(folder, f"the manifest does not match {' and '.join(changed) or 'the format'}")
    extra = {path.name for path in folder.iterdir()} - {*members, _MANIFEST}
    if extra:
        raise _damaged(folder, f"it holds files that do not belong to it: {sorted(extra)}")
    return members


def _describe(estimator: Fitted, target_name: str) -> dict[str, Any]:
    predictor = estimator.predictor_
    classes = getattr(estimator, "classes_", None)
    names = getattr(estimator, "feature_names_in_", None)
    return {
        "task": predictor.task.kind,
        "classes": None if classes is None else {"kind": classes.dtype.kind, "labels": classes.tolist()},
        "feature_names": None if names is None else [str(name) for name in names],
        "num_features": estimator.n_features_in_,
        "target_name": target_name,
        "chosen": estimator.chosen_,
        "recipe": to_toml(estimator.recipe_),
        "history": [asdict(record) for record in estimator.history_],
    }
