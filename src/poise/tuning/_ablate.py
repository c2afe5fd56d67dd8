"""`poise.ablate`: a designed experiment on which ingredient of a recipe mattered."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from poise._checks import Interval, check_choice, check_integer, check_real
from poise._errors import ConfigError
from poise.data import check_columns
from poise.recipe import Recipe, known, to_toml, validate_recipe
from poise.train import Dataset, Task, to_json, write_atomically
from poise.tuning._ablation_blocks import NUM_FOLDS, Trainer, check_enough
from poise.tuning._ablation_design import DESIGNS, Design, DesignName, make_design
from poise.tuning._ablation_judge import constant_loss, make_effects, open_arms, plan_looks
from poise.tuning._ablation_result import AblationProgress, AblationResult, Arm, Effect, Run
from poise.tuning._ablation_words import remarks, verdict
from poise.tuning._run_folder import RunFolder, environment
from poise.tuning._table import feature_schema, merge_equal_rows, read_labeled, source_name


def ablate(
    data: Any,
    *,
    target: str,
    recipe: Recipe | str = "cocktail",
    design: DesignName = "leave-one-out",
    margin: float = 0.01,
    max_blocks: int = 20,
    time_limit: float | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[AblationProgress], None] | None = None,
) -> AblationResult:
    """Find out which ingredients of a recipe lower the test loss, with intervals.

    Every arm, a recipe with some of its ingredients, is trained on the same blocks: the same training rows, validation
    rows, initial weights, order of rows and masks. An effect is the mean over blocks of

        loss(with it) - loss(without it)

    on test rows that no training has looked at; negative helps. Blocks are the folds of repeated 5-fold splits, and
    intervals allow for the rows that they share. After every 5 blocks, ingredients whose interval excludes zero
    ("helps", "hurts") or lies within the margin ("no effect") are decided, and arms that only they need are trained no
    more. The chance of any false claim over all ingredients and all looks is at most 5 %. What stays open is "cannot
    tell".

    Args:
        data: Path of a CSV, TSV or Parquet file, or a frame.
        target: Name of the column to predict.
        recipe: A recipe, or the name of a known one. Ingredients are its methods, and the settings of optimizer and
            network in which it differs from the known recipe "bare"; shape and budget are the same in every arm.
        design: "leave-one-out" (all against all but one), "add-one-in" (one against none) or "pairs" (leave-one-out
            with the interaction of every two).
        margin: Smallest effect that matters, as a share of the loss of the best constant prediction, > 0.
        max_blocks: Most trainings of an arm, ≥ 2.
        time_limit: Seconds, > 0, or None. A stage that would not fit is not begun; if even the first one does not fit,
            all trainings are cut to the same number of epochs.
        seed: Names all random numbers.
        out: Run folder for config, checkpoints and result; None keeps nothing on disk.
        resume: Continue the run in `out`; one that came to its end is only read again.
        progress: Called whenever a training has ended.

    Returns:
        Effects on test loss, on the gap, and on steps and seconds to the lowest validation loss of the bare network.

    Raises:
        ConfigError: If a setting is out of its range, the recipe has no ingredient, or there is no time for one epoch.
        DataError: If the data cannot be learnt from, or are fewer than 20 different rows.
        ResumeError: If `out` holds another run.

    Example:
        >>> import polars
        >>> from poise import Budget, Network, Recipe, ablate
        >>> from poise.methods import Dropout, EMA
        >>> table = polars.DataFrame({"x": [i * i % 61 for i in range(60)], "z": ["a", "b"] * 30})
        >>> recipe = Recipe((Dropout(p=0.2), EMA()), budget=Budget(max_epochs=2), network=Network(width=8, depth=1))
        >>> result = ablate(table, target="z", recipe=recipe, max_blocks=5)
        >>> [effect.name for effect in result.effects]
        ['whole recipe', 'Dropout', 'EMA', 'optimizer.lr']

    Reference: Nadeau and Bengio, "Inference for the generalization error", Machine Learning 52, 2003; Jennison and
        Turnbull, "Group sequential methods with applications to clinical trials", 1999.
    """
    started = time.perf_counter()
    asked = _Asked(_checked_recipe(recipe), design, margin, max_blocks, time_limit, seed)
    asked.check()
    source, (rows, task) = source_name(data), _read(data, target)
    drawn = make_design(asked.recipe, design)
    with RunFolder(out, resume=resume) as folder:
        folder.write_config(asked.config(source, target))
        before = folder.read_result(AblationResult.from_dict)
        if before is not None:
            return before
        trainer = Trainer(drawn.arms, rows, task, seed, progress)
        stages = _Stages(trainer, drawn, asked, folder.checkpoints, margin * constant_loss(rows, task))
        ended = stages.run()
        arms = _arms(drawn, stages.runs)
        result = AblationResult(
            source=source,
            target=target,
            task=task.kind,
            loss_name=task.loss_name,
            design=design,
            num_rows=rows.table.height,
            num_blocks=stages.seen,
            margin=stages.margin,
            effects=stages.effects,
            arms=arms,
            runs=tuple(stages.runs),
            ended=ended,
            verdict=verdict(stages.effects, stages.margin, task.loss_name, stages.seen),
            seconds=time.perf_counter() - started,
            run_folder="" if out is None else str(out),
            warnings=remarks(drawn, arms, rows, task, cut=stages.cut),
            environment=environment(seed),
        )
        folder.write_result(result.to_dict())
    return result


@dataclass(frozen=True)
class _Asked:
    """The settings of an ablation."""

    recipe: Recipe
    design: DesignName
    margin: float
    max_blocks: int
    time_limit: float | None
    seed: int

    def check(self) -> None:
        check_choice("design", self.design, DESIGNS)
        check_real("margin", self.margin, Interval(0, low_open=True))
        check_integer("max_blocks", self.max_blocks, Interval(2))
        check_integer("seed", self.seed, Interval(0))
        if self.time_limit is not None:
            check_real("time_limit", self.time_limit, Interval(0, low_open=True))

    def config(self, source: str, target: str) -> dict[str, Any]:
        """As it stands in `config.toml`."""
        plain = {name: value for name, value in vars(self).items() if value is not None}
        return {"source": source, "target": target} | plain | {"recipe": to_toml(self.recipe)}


def _checked_recipe(recipe: Recipe | str) -> Recipe:
    if isinstance(recipe, str):
        return known(recipe)
    if not isinstance(recipe, Recipe):
        raise ConfigError(f"`recipe` must be a Recipe or a name, but got recipe={recipe!r}.")
    validate_recipe(recipe)
    return recipe


def _read(data: Any, target: str) -> tuple[Dataset, Task]:
    table = read_labeled(data, target)
    schema = feature_schema(table.features)
    check_columns(schema, table.features)
    rows = merge_equal_rows(table.dataset(schema, np.arange(table.features.height)))
    check_enough(rows)
    return rows, table.task


class _Stages:
    """Stages of blocks, until all is decided or blocks or time are used up."""

    def __init__(self, trainer: Trainer, design: Design, asked: _Asked, folder: Path | None, margin: float) -> None:
        self.trainer, self.design, self.asked, self.folder, self.margin = trainer, design, asked, folder, margin
        self.looks = plan_looks(asked.max_blocks, NUM_FOLDS)
        self.runs: list[Run] = []
        self.effects: tuple[Effect, ...] = ()
        self.seen = 0
        self.seconds = 0.0
        self.cut: int | None = None

    def run(self) -> str:
        """Train stage after stage; say why that ended."""
        self.cut = self._first_cut()
        arms = list(self.design.arms)
        for count in self.looks.counts:
            kept = self._kept(count)
            if kept is None and not self._has_time(arms, count - self.seen):
                return "time"
            self._add(kept or self._train(arms, count), count)
            arms = open_arms(self.design, self.effects)
            if not arms:
                return "decided"
        return "blocks"

    def _kept(self, count: int) -> dict[str, Any] | None:
        """The stage that ends with `count` blocks, if it was trained before."""
        path = self.folder and self.folder / f"blocks-{count}.json"
        if path is None or not path.exists():
            return None
        kept: dict[str, Any] = json.loads(path.read_bytes())
        return kept

    def _train(self, arms: Sequence[str], count: int) -> dict[str, Any]:
        started = time.perf_counter()
        folder = self.folder and self.folder / f"blocks-{count}"
        runs = self.trainer.run(arms, range(self.seen, count), max_epochs=self.cut, folder=folder)
        stage = {"seconds": time.perf_counter() - started, "runs": [asdict(run) for run in runs]}
        if folder is not None:
            write_atomically(folder.with_suffix(".json"), to_json(stage))
        return stage

    def _add(self, stage: dict[str, Any], count: int) -> None:
        self.runs += [Run(**one) for one in stage["runs"]]
        self.seconds += stage["seconds"]
        first, self.seen = self.seen, count
        self.effects = make_effects(self.design, self.runs, self.looks, count, self.margin)
        if self.trainer.progress is not None:
            num = len(stage["runs"])
            self.trainer.progress(AblationProgress(first, count - 1, num, num, stage["seconds"], self._standing()))

    def _standing(self) -> str:
        """What is decided, in a line."""
        judged = [one for one in self.effects if one.kind != "recipe"]
        decided = [f"{one.name}: {one.verdict}" for one in judged if one.verdict != "cannot tell"]
        listed = f" ({', '.join(decided)})" if decided else ""
        return f"after {self.seen} blocks {len(decided)} of {len(judged)} effects are decided{listed}"

    def _has_time(self, arms: Sequence[str], num_blocks: int) -> bool:
        """Whether a stage fits, if its trainings take as long as those before."""
        if self.asked.time_limit is None or not self.runs:
            return True
        pace = self.seconds / len(self.runs)
        return self.seconds + pace * len(arms) * num_blocks <= self.asked.time_limit

    def _first_cut(self) -> int | None:
        """Epochs to which the time limit cuts every training; measured once, so that a resumed run has the same."""
        if self.asked.time_limit is None:
            return None
        path = self.folder and self.folder / "epochs.json"
        if path is not None and path.exists():
            kept: int | None = json.loads(path.read_bytes())
            return kept
        cut = self.trainer.affordable_epochs(self.looks.counts[0], self.asked.time_limit)
        if path is not None:
            write_atomically(path, to_json(cut))
        return cut


def _arms(design: Design, runs: Sequence[Run]) -> tuple[Arm, ...]:
    return tuple(_arm(name, recipe, [run for run in runs if run.arm == name]) for name, recipe in design.arms.items())


def _arm(name: str, recipe: Recipe, runs: Sequence[Run]) -> Arm:
    whole = [run for run in runs if run.test_loss is not None]
    return Arm(
        name=name,
        num_blocks=len(runs),
        num_failed=len(runs) - len(whole),
        train_loss=fmean(run.train_loss or 0.0 for run in whole) if whole else None,
        test_loss=fmean(run.test_loss or 0.0 for run in whole) if whole else None,
        seconds=sum(run.seconds for run in runs),
        recipe_toml=to_toml(recipe),
    )
