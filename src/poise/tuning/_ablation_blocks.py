"""Training all arms of an ablation on the same rows with the same random numbers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from poise._errors import ConfigError, DataError
from poise._random import Key
from poise.data import fold_rows
from poise.fleet import Fleet, preparation, within_time
from poise.recipe import Recipe
from poise.train import Dataset, Plan, Predictor, State, Task, batch_bounds
from poise.tuning._ablation_result import AblationProgress, Run

NUM_FOLDS = 5
RATIO = 1 / (NUM_FOLDS - 1)  # test rows over rows that a network learns from
_MIN_ROWS = 20
_SEEDS = 2**31


@dataclass(frozen=True, eq=False)
class Block:
    """One split of the rows and one seed, which all arms share.

    Args:
        index: From 0; block b tests fold b mod 5 of the b // 5-th shuffle.
        train: Rows to learn from.
        val: Rows that early stopping looks at: the next fold.
        test: Rows that nothing but the comparison looks at.
        seed: Of all random numbers of the trainings.
    """

    index: int
    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]
    seed: int


def check_enough(data: Dataset) -> None:
    """Refuse a table that is too small to be split.

    Raises:
        DataError: If there are fewer than 20 different rows.
    """
    if data.table.height < _MIN_ROWS:
        raise DataError(
            f"{data.table.height} different rows are too few for an ablation, which needs {_MIN_ROWS}.",
            repair="Give more rows.",
        )


def make_block(index: int, data: Dataset, task: Task, seed: int) -> Block:
    """Block `index` of the run that `seed` names."""
    repeat, fold = divmod(index, NUM_FOLDS)
    classes = None if task.kind == "regression" else data.target.astype(np.int64)
    every = np.arange(data.table.height)
    folds = fold_rows(len(every), NUM_FOLDS, key=Key(seed).stream("repeat", repeat), classes=classes)
    test, val = folds[fold], folds[(fold + 1) % NUM_FOLDS]
    train = np.setdiff1d(every, np.concatenate([test, val]))
    return Block(index, train, val, test, Key(seed).stream("block", index).seed % _SEEDS)


@dataclass(frozen=True, eq=False)
class Trainer:
    """Trains arms on blocks.

    Args:
        arms: Recipes by name.
        data: All rows.
        task: What to predict.
        seed: Of the run.
        progress: Called whenever a training has ended.
    """

    arms: Mapping[str, Recipe]
    data: Dataset
    task: Task
    seed: int
    progress: Callable[[AblationProgress], None] | None = None

    def plan(self, arm: str, block: Block, max_epochs: int | None) -> Plan:
        """The training of an arm on a block, of at most `max_epochs` epochs."""
        name = f"{arm}, block {block.index}"
        plan = Plan(name, self.arms[arm], self.task, block.train, block.val, block.seed)
        return plan if max_epochs is None else plan.with_max_epochs(min(max_epochs, plan.max_epochs))

    def affordable_epochs(self, num_blocks: int, seconds: float) -> int | None:
        """Epochs of every training, so that all arms on `num_blocks` blocks end within `seconds`; None for no cut.

        All arms get the same number, or they could not be compared.

        Raises:
            ConfigError: If there is no time for one epoch each.
        """
        started = time.perf_counter()
        block = make_block(0, self.data, self.task, self.seed)
        plans = [self.plan(arm, block, None) for arm in self.arms]
        fitted = within_time(plans, self.data, seconds / num_blocks)
        fewest = min(plan.max_epochs for plan in fitted)
        if fewest == 1 and time.perf_counter() - started > seconds:
            raise ConfigError(
                f"`time_limit` is too short: one epoch of {len(plans)} trainings takes all of it, and "
                f"{len(plans) * num_blocks} trainings are the least.",
                repair="Give more time, or a smaller recipe.",
            )
        return None if all(one.max_epochs == two.max_epochs for one, two in zip(plans, fitted, strict=True)) else fewest

    def run(
        self, arms: Sequence[str], blocks: Sequence[int], *, max_epochs: int | None, folder: Path | None
    ) -> list[Run]:
        """Train `arms`, of which "none" is one, on `blocks`, and measure each training.

        Args:
            arms: Names.
            blocks: Indices.
            max_epochs: For every training, or None.
            folder: For checkpoints, or None.
        """
        made = [make_block(index, self.data, self.task, self.seed) for index in blocks]
        pairs = [(arm, block) for block in made for arm in arms]
        plans = [self.plan(arm, block, max_epochs) for arm, block in pairs]
        report = _Report(self.progress, blocks, len(plans))
        report.note(preparation(plans))
        fleet = Fleet(plans, self.data, folder=folder)
        report.ended = sum(bool(state.stopped) for state in fleet.states)
        states = fleet.run(on_epoch=report.on_epoch)
        goals = {
            block.index: _lowest_loss(state) for (arm, block), state in zip(pairs, states, strict=True) if arm == "none"
        }
        return [
            self._measure(arm, block, plan, state, goals[block.index])
            for (arm, block), plan, state in zip(pairs, plans, states, strict=True)
        ]

    def _measure(self, arm: str, block: Block, plan: Plan, state: State, goal: float | None) -> Run:
        best, history = state.best, state.history
        reached = next((one for one in history if goal is not None and one.val_loss <= goal), None)
        return Run(
            arm=arm,
            block=block.index,
            train_loss=best.train_loss if best else None,
            val_loss=best.val_loss if best else None,
            test_loss=self._test_loss(block, plan, state) if best else None,
            epochs=state.epoch,
            max_epochs=plan.max_epochs,
            steps_an_epoch=len(batch_bounds(len(plan.train_rows), plan.recipe.budget.batch_size)),
            seconds=history[-1].seconds if history else 0.0,
            reached_epoch=reached.epoch if reached else None,
            reached_seconds=reached.seconds if reached else None,
            stopped=state.stopped,
        )

    @torch.no_grad()
    def _test_loss(self, block: Block, plan: Plan, state: State) -> float | None:
        rows = block.test
        values = (torch.from_numpy(self.data.target[rows]) - state.target_mean) / state.target_scale
        outputs = Predictor(plan.recipe, self.task, state).outputs(self.data.table[rows])
        losses = self.task.row_losses(outputs, self.task.targets(values))
        loss = float(np.average(losses.numpy(), weights=self.data.weight[rows]))
        return loss if math.isfinite(loss) else None


def _lowest_loss(state: State) -> float | None:
    return min((record.val_loss for record in state.history), default=None)


class _Report:
    """Tells how far a stage is."""

    def __init__(
        self, progress: Callable[[AblationProgress], None] | None, blocks: Sequence[int], num_trainings: int
    ) -> None:
        self.progress, self.blocks, self.num_trainings = progress, blocks, num_trainings
        self.started, self.ended = time.perf_counter(), 0

    def note(self, note: str) -> None:
        if note and self.progress is not None:
            self.progress(self._now(note))

    def on_epoch(self, _index: int, _plan: Plan, state: State) -> None:
        if not state.stopped:
            return
        self.ended += 1
        if self.progress is not None:
            self.progress(self._now())

    def _now(self, note: str = "") -> AblationProgress:
        seconds = time.perf_counter() - self.started
        return AblationProgress(self.blocks[0], self.blocks[-1], self.ended, self.num_trainings, seconds, note)
