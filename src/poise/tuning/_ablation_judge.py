"""From trainings to effects with intervals and verdicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from poise.train import Dataset, Task
from poise.tuning._ablation_blocks import RATIO
from poise.tuning._ablation_design import Contrast, Design, Kind
from poise.tuning._ablation_result import Effect, Estimate, Run
from poise.tuning._decisions import Decision, decide
from poise.tuning._looks import Looks, log_ratio, mean_interval

_LEVEL = 0.05
_KINDS: tuple[Kind, ...] = ("recipe", "ingredient", "pair")


def plan_looks(max_blocks: int, blocks_a_stage: int) -> Looks:
    """A look after every stage; the last stage may be shorter."""
    counts = (*range(blocks_a_stage, max_blocks, blocks_a_stage), max_blocks)
    return Looks(counts, RATIO)


def constant_loss(data: Dataset, task: Task) -> float:
    """Loss of the best prediction that is the same for every row: the entropy of the classes, or 1.

    Args:
        data: All rows.
        task: What is predicted.
    """
    if task.kind == "regression":
        return 1.0
    shares = np.bincount(data.target.astype(np.int64), weights=data.weight) / data.weight.sum()
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())


def make_effects(design: Design, runs: Sequence[Run], looks: Looks, seen: int, margin: float) -> tuple[Effect, ...]:
    """The effect of every contrast. Ingredients are one family, pairs another, the whole recipe stands alone.

    Args:
        design: What is compared.
        runs: All trainings so far.
        looks: When they are looked at.
        seen: Blocks trained so far.
        margin: Effects on the test loss that are smaller do not matter.
    """
    table = _Table(runs, looks)
    effects: list[Effect] = []
    for kind in _KINDS:
        family = design.of_kind(kind)
        differences = {one.name: table.combine(one, lambda run: run.test_loss) for one in family}
        decisions = decide(differences, seen, looks, margin=margin, level=_LEVEL)
        effects += [table.effect(one, decisions.get(one.name)) for one in family]
    order = {one.name: number for number, one in enumerate(design.contrasts)}
    return tuple(sorted(effects, key=lambda one: order[one.name]))


def open_arms(design: Design, effects: Sequence[Effect]) -> list[str]:
    """The arms that undecided ingredients and pairs need, and "none", which sets the targets; [] if all are decided."""
    is_open = {one.name for one in effects if one.verdict == "cannot tell" and one.kind != "recipe"}
    needed = {arm for one in design.contrasts if one.name in is_open for arm in one.weights}
    return [arm for arm in design.arms if arm in needed | {"none"}] if needed else []


class _Table:
    """Trainings by arm and block."""

    def __init__(self, runs: Sequence[Run], looks: Looks) -> None:
        self.runs = {(run.arm, run.block): run for run in runs}
        self.looks = looks
        self.num_blocks = 1 + max((run.block for run in runs), default=-1)

    def combine(self, contrast: Contrast, value: Callable[[Run], float | None]) -> NDArray[np.float64]:
        """The weighted sum of a number of each arm, for each block; NaN where an arm has none."""
        total = np.zeros(self.num_blocks)
        for arm, weight in contrast.weights.items():
            total += [weight * self._number(arm, block, value) for block in range(self.num_blocks)]
        return total

    def _number(self, arm: str, block: int, value: Callable[[Run], float | None]) -> float:
        run = self.runs.get((arm, block))
        found = None if run is None else value(run)
        return math.nan if found is None else found

    def effect(self, contrast: Contrast, decision: Decision | None) -> Effect:
        """The effect of a contrast; where the losses decide is known already."""
        gaps = self.combine(contrast, lambda run: run.gap)
        gaps = gaps[np.isfinite(gaps)]
        pairs = self._pairs(contrast)
        return Effect(
            name=contrast.name,
            kind=contrast.kind,
            verdict=decision.verdict if decision else "cannot tell",
            loss=Estimate(decision.value, decision.low, decision.high) if decision else None,
            level=decision.level if decision else _LEVEL,
            num_blocks=decision.num_blocks if decision else len(gaps),
            gap=Estimate(*mean_interval(gaps, self.looks, level=_LEVEL)) if len(gaps) > 1 else None,
            steps=self._ratio(pairs, lambda run: float(run.restricted_steps)),
            seconds=self._ratio(pairs, lambda run: run.restricted_seconds),
            reached_with=sum(one.reached_epoch is not None for one, _ in pairs),
            reached_without=sum(other.reached_epoch is not None for _, other in pairs),
        )

    def _pairs(self, contrast: Contrast) -> list[tuple[Run, Run]]:
        """Trainings with and without an ingredient in each block that has a target."""
        if contrast.kind == "pair":
            return []
        first, second = contrast.weights
        found = [
            tuple(self.runs.get((arm, block)) for arm in (first, second, "none")) for block in range(self.num_blocks)
        ]
        return [
            (one, other)
            for one, other, bare in found
            if one and other and bare and None not in (one.val_loss, other.val_loss, bare.val_loss)
        ]

    def _ratio(self, pairs: Sequence[tuple[Run, Run]], value: Callable[[Run], float]) -> Estimate | None:
        values = np.array([(value(one), value(other)) for one, other in pairs])
        reached = any(run.reached_epoch is not None for pair in pairs for run in pair)
        if len(values) < 2 or values.min() <= 0 or not reached:
            return None
        return Estimate(*log_ratio(values[:, 0], values[:, 1], self.looks, level=_LEVEL))
