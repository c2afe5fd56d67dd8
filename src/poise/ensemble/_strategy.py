"""The base of all ways to train an ensemble."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from poise.ensemble._held_out import HeldOut
from poise.ensemble._job import Job, OnEpoch, TrainedMember, check_job
from poise.ensemble._members import Predicts
from poise.fleet import Engine
from poise.recipe import Recipe
from poise.train import Dataset, Task


@dataclass(frozen=True, eq=False)
class TrainedEnsemble:
    """An ensemble, and what is known of it.

    Args:
        predictor: Predicts as one network does.
        members: Its networks, without those that did not stay finite.
        notes: What a reader should know, one sentence each.
        held_out: Predictions for training rows by members that have not seen them, where there are such.
        seconds: From the start to now.
    """

    predictor: Predicts
    members: tuple[TrainedMember, ...]
    notes: tuple[str, ...] = ()
    held_out: HeldOut | None = None
    seconds: float = 0.0

    @property
    def num_parameters(self) -> int:
        """Weights of all members."""
        return sum(member.state.tensors["served"].numel() for member in self.members)


@dataclass(frozen=True)
class EnsembleStrategy(ABC):
    """A way to train an ensemble: which plans a fleet gets, and how their predictions are joined."""

    def train(
        self,
        data: Dataset,
        task: Task,
        recipe: Recipe,
        *,
        seed: int = 0,
        val_fraction: float = 0.2,
        folder: Path | None = None,
        engines: Sequence[Engine] | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> TrainedEnsemble:
        """Train all members and join them.

        Args:
            data: All rows that may be learnt from. Equal rows should be merged, so that none is on both sides.
            task: What to predict.
            recipe: Of every member.
            seed: Names all random numbers.
            val_fraction: Share of the rows for validation, in (0, 1).
            folder: For checkpoints, so that a killed training goes on where it stood; None keeps nothing on disk.
            engines: Who may train, as in `Fleet`.
            on_epoch: Called with the plan's index, the plan and its state after every epoch of every network.

        Raises:
            ConfigError: If a setting is out of its range.
            DataError: If the data cannot be learnt from, or are too few for this way.
            ResumeError: If the folder holds another training.
            TrainingError: If no member ended with finite weights.
        """
        started = time.perf_counter()
        job = Job(data, task, recipe, seed, val_fraction, folder, engines, on_epoch)
        check_job(job)
        trained = self._train(job)
        return replace(trained, seconds=time.perf_counter() - started)

    @abstractmethod
    def _train(self, job: Job) -> TrainedEnsemble:
        """Train all members and join them."""
