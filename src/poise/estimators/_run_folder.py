"""What a fit keeps in its run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from poise.estimators._base import PoiseEstimator
from poise.estimators._bundle import save_bundle
from poise.estimators._result import FitResult
from poise.recipe import Recipe, to_toml
from poise.train import to_json, write_atomically
from poise.tuning import RunFolder


def config_of(
    *, source: str, target: str, seed: int, time_limit: float | None, recipes: Mapping[str, Recipe] | None
) -> dict[str, Any]:
    """What was asked, as it stands in `config.toml`."""
    config: dict[str, Any] = {"source": source, "target": target, "seed": seed}
    config |= {} if time_limit is None else {"time_limit": time_limit}
    return config | {"recipes": {name: to_toml(recipe) for name, recipe in (recipes or {}).items()}}


def finished(folder: RunFolder) -> FitResult | None:
    """The result, if this run came to its end before."""
    return folder.read_result(FitResult.from_dict)


def finish(folder: RunFolder, result: FitResult, estimator: PoiseEstimator, target: str) -> None:
    """Write bundle, metrics, environment and, last, the result."""
    if folder.path is None:
        return
    save_bundle(estimator, folder.path / "bundle", target_name=target)
    lines = [to_json({"name": one.name, **asdict(record)}) for one in result.candidates for record in one.history]
    write_atomically(folder.path / "metrics.jsonl", b"\n".join(lines) + b"\n")
    write_atomically(folder.path / "environment.json", json.dumps(result.environment, indent=2).encode())
    folder.write_result(asdict(result))
