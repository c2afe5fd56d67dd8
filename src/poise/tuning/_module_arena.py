"""Trials of any torch module: plain or in stacks, with states that outlive the process."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from poise._errors import PoiseWarning, ResumeError, TrainingError
from poise.fleet.modules import (
    Built,
    Job,
    Member,
    ModuleState,
    PlainLoop,
    StackedLoop,
    build,
    structure,
    why_not,
    why_not_together,
)
from poise.recipe import Recipe, to_toml
from poise.tuning._arena import Arena

EngineChoice = Literal["auto", "plain", "stacked"]
_SECONDS_BETWEEN_CHECKPOINTS = 1.0
_ASKED, _ALONE = "plain was asked for", "no other trial of their structure was trained at the time"
_FEWEST_BATCHES = 4  # of which a spread can be told
Group = tuple[Any, ...]


@dataclass(eq=False)
class _Entry:
    """A trial, and how far it was asked to go."""

    recipe: Recipe
    state: ModuleState = field(default_factory=ModuleState)
    target: int = 0
    reason: str | None = None  # why it is not stacked; None as long as nobody asked
    group: Group = ()
    saved: tuple[int, str] = (0, "")
    saved_at: float = 0.0


class ModuleArena(Arena):
    """Trains modules, those of one structure side by side where that is quicker.

    Args:
        job: What is trained on what.
        engine: "auto" stacks what gains by it, "stacked" whatever can be, "plain" nothing.
        width: Most trials in a stack, ≥ 2.
        folder: Exists, and keeps a state for each trial; None keeps nothing on disk.
    """

    def __init__(self, job: Job, *, engine: EngineChoice = "auto", width: int = 16, folder: Path | None = None) -> None:
        self.job, self.max_epochs, self.folder = job, job.max_epochs, folder
        self._choice, self._width = engine, width
        self._entries: dict[int, _Entry] = {}
        self._tried: dict[Group, str] = {}
        self._told: set[str] = set()

    # The contract

    def enter(self, entries: Mapping[int, Recipe]) -> None:
        for number, recipe in entries.items():
            self._entries[number] = self._restored(number, recipe)

    def advance(self, targets: Mapping[int, int]) -> None:
        for number, target in targets.items():
            entry = self._entries[number]
            entry.target = max(entry.target, target)
            if _goes_on(entry) and not entry.state.is_whole:
                entry.state = ModuleState()  # only what predicts was kept: it begins anew, and comes out the same
        with self._kept():
            for numbers in self._crews([number for number in sorted(targets) if _goes_on(self._entries[number])]):
                self._train_together(numbers) if len(numbers) > 1 else self._train(numbers[0])

    def curve(self, number: int) -> list[float]:
        entry = self._entries[number]
        # A search that is resumed may know more of a trial than it has asked for again.
        return entry.state.val_losses[: entry.target]

    def failed(self, number: int) -> bool:
        entry = self._entries[number]
        return entry.state.stopped == "non-finite" and entry.state.epoch < entry.target

    def leave(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._entries[number].state.reduce()
            self._save(number)

    def seconds(self, number: int) -> float:
        return self._entries[number].state.seconds

    def engine(self, number: int) -> str:
        return ", ".join(self._entries[number].state.engines)

    def noise(self) -> float:
        """As for `Arena.noise`, between the two best trials, over the batches of the validation rows."""
        ranked = sorted((one.state for one in self._entries.values() if one.state.best_epoch), key=_best_loss)
        parts = [one.best_parts for one in ranked[:2]]
        if len(parts) < 2 or len(parts[0]) < _FEWEST_BATCHES:
            return 0.0
        return float(np.subtract(parts[0], parts[1]).std(ddof=1)) / math.sqrt(len(parts[0]))

    # What a search needs besides

    def reasons(self) -> dict[int, str]:
        """Why trials that were never in a stack were not, by number."""
        alone = [number for number, entry in self._entries.items() if entry.state.engines and _is_alone(entry.state)]
        reasons = {number: self._entries[number].reason or _ALONE for number in alone}
        return {number: reason for number, reason in reasons.items() if reason != _ASKED}

    def best_epoch(self, number: int) -> int:
        """The epoch whose weights predict."""
        return self._entries[number].state.best_epoch

    def model(self, number: int) -> Built:
        """A new model with the weights of the trial's best epoch, in eval mode.

        Raises:
            TrainingError: If there is none.
        """
        entry = self._entries[number]
        if not entry.state.best_epoch:
            raise TrainingError(f"Trial {number} has no weights: no epoch of it ended with finite numbers.")
        built = build(self.job, entry.recipe)
        built.load(entry.state.tensors, "best.")
        built.model.eval()
        return built

    def served(self, number: int) -> ModuleState:
        """What predicts, as a state."""
        state = self._entries[number].state
        kept = {name: one for name, one in state.tensors.items() if name.startswith("best.")}
        return ModuleState(kept, best_epoch=state.best_epoch, seconds=state.seconds, engines=state.engines)

    # Who trains with whom

    def _crews(self, numbers: Sequence[int]) -> Iterator[list[int]]:
        """Trials that train together, one after the other where alone."""
        groups: dict[Group, list[int]] = {}
        for number in numbers:
            entry = self._entries[number]
            if entry.reason is None:
                self._look_at(entry)
            name = ("alone", number) if entry.reason else (*entry.group, entry.state.epoch)
            groups.setdefault(name, []).append(number)
        for group in groups.values():
            for at in range(0, len(group), self._width):
                yield group[at : at + self._width]

    def _look_at(self, entry: _Entry) -> None:
        """Find out whether a trial can be stacked, and with which others."""
        if self._choice == "plain":
            entry.reason = _ASKED
            return
        built = self._build(entry.recipe)
        entry.reason = why_not(entry.recipe, built, sparing=self._choice == "auto")
        if not entry.reason:
            entry.group = structure(entry.recipe, built)
            if entry.group not in self._tried:
                self._tried[entry.group] = why_not_together(self.job, entry.recipe, built)
            entry.reason = self._tried[entry.group]

    def _build(self, recipe: Recipe) -> Built:
        built = build(self.job, recipe)
        self._tell(built.notes)
        return built

    def _tell(self, notes: Iterable[str]) -> None:
        for note in notes:
            if note not in self._told:
                self._told.add(note)
                warnings.warn(note, PoiseWarning, stacklevel=2)

    # Training

    def _train(self, number: int) -> None:
        entry = self._entries[number]
        loop = PlainLoop(self.job, entry.recipe, entry.state)
        self._tell(loop.built.notes)
        while _goes_on(entry):
            loop.run_epoch()
            self._save_now_and_then(number)

    def _train_together(self, numbers: Sequence[int]) -> None:
        live = list(numbers)
        try:
            entries = [self._entries[number] for number in live]
            loop = StackedLoop(self.job, [Member(one.recipe, one.state, self._build(one.recipe)) for one in entries])
            while live:
                loop.run_epoch()
                for number in live:
                    self._save_now_and_then(number)
                places = [place for place, number in enumerate(live) if _goes_on(self._entries[number])]
                if 0 < len(places) < len(live):
                    loop.keep(places)
                live = [live[place] for place in places]
        except PoiseWarning:
            raise  # where warnings are errors
        except Exception as error:  # whatever torch.vmap meets in foreign code, after the pass that was tried
            # States are as they were after the last whole epoch.
            for number in live:
                self._entries[number].reason = f"the stack failed: {type(error).__name__}: {error}"
                self._train(number)

    # States on disk

    def _about(self, recipe: Recipe) -> dict[str, Any]:
        return {"recipe": to_toml(recipe)}

    def _restored(self, number: int, recipe: Recipe) -> _Entry:
        entry = _Entry(recipe)
        found = None if self.folder is None else ModuleState.read(self.folder, _name(number))
        if found is not None:
            entry.state, about = found
            if about != self._about(recipe):
                raise ResumeError(
                    f"Trial {number} of the folder has another recipe than this search gives it.",
                    where=str(self.folder), repair="Search the same space with the same options, or in another folder.",
                )  # fmt: skip
            entry.saved = _mark(entry.state)
        return entry

    def _save_now_and_then(self, number: int) -> None:
        if time.monotonic() - self._entries[number].saved_at >= _SECONDS_BETWEEN_CHECKPOINTS:
            self._save(number)

    def _save(self, number: int) -> None:
        if self.folder is not None:
            entry = self._entries[number]
            entry.state.save(self.folder, _name(number), self._about(entry.recipe))
            entry.saved, entry.saved_at = _mark(entry.state), time.monotonic()

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """After it, also after an interrupt, what was trained is on disk."""
        try:
            yield
        finally:
            for number, entry in self._entries.items():
                if entry.state.stopped:
                    entry.state.reduce()
                if entry.saved != _mark(entry.state):
                    self._save(number)


def _goes_on(entry: _Entry) -> bool:
    return not entry.state.stopped and entry.state.epoch < entry.target


def _is_alone(state: ModuleState) -> bool:
    return StackedLoop.name not in state.engines


def _best_loss(state: ModuleState) -> float:
    return min(state.val_losses)


def _mark(state: ModuleState) -> tuple[int, str]:
    return state.epoch, state.stopped


def _name(number: int) -> str:
    return f"trial-{number:05d}"
