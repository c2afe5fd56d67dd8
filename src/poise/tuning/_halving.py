"""Successive halving: all trials begin, the better ones go on, and a place that is left is taken at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from poise._checks import Interval, check_integer
from poise.tuning._arena import Arena
from poise.tuning._propose import Proposer
from poise.tuning._trial import Trial

_BASE = 3  # ratio of the epochs of one rung to those of the rung below
_MOST_RUNGS = 5
_FEWEST_FOR_CORRELATION = 6
OnTick = Callable[[Sequence[Trial]], None]


@dataclass(frozen=True)
class HalvingOptions:
    """How a race goes.

    Args:
        num_trials: Recipes to try, ≥ 1.
        batch_size: Recipes proposed at a time, ≥ 1; those of a batch do not learn from each other.
        eta: One trial in `eta` goes on, 2, 3 or 4; None measures it: the better a rung's order predicts that of the
            next one, the fewer go on.
        min_complete: Trials that train to the end, if so many have not failed, ≥ 1.
        num_rungs: Including the last; 1 trains every trial to its end. None for one rung for each factor of 3 in the
            epochs, five at most.
        patience: Batches without gain beyond noise after which no more are proposed, ≥ 1.

    Example:
        >>> HalvingOptions(num_trials=81, eta=3).rungs(60)
        (2, 6, 20, 60)
    """

    num_trials: int
    batch_size: int = 8
    eta: int | None = None
    min_complete: int = 1
    num_rungs: int | None = None
    patience: int = 3

    def __post_init__(self) -> None:
        for name in ("num_trials", "batch_size", "min_complete", "patience"):
            check_integer(name, getattr(self, name), Interval(1))
        if self.eta is not None:
            check_integer("eta", self.eta, Interval(2, 4))
        if self.num_rungs is not None:
            check_integer("num_rungs", self.num_rungs, Interval(1, 8))

    def rungs(self, max_epochs: int) -> tuple[int, ...]:
        """Epochs at the end of each rung, increasing."""
        most = self.num_rungs or min(_MOST_RUNGS, 1 + int(math.log(max_epochs, _BASE) + 1e-9))
        return tuple(sorted({max(1, max_epochs // _BASE**power) for power in range(most)}))


class Race:
    """Lets trials compete.

    In each tick one batch begins, and whoever is among the best of a rung goes on to the next, all side by side. Who
    goes on depends on losses at rungs and on nothing else: not on the clock, nor on the number of cores.

    Args:
        arena: Trains the trials.
        proposer: Says what to try.
        options: How many, and how strictly.
        on_tick: Told all trials after each tick, and at the end.
        out_of_time: Asked before each tick; after a yes no trial begins or goes on.

    Reference: Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization", AISTATS
    2016. Li et al., "A system for massively parallel hyperparameter tuning", MLSys 2020.
    """

    def __init__(
        self,
        arena: Arena,
        proposer: Proposer,
        options: HalvingOptions,
        *,
        on_tick: OnTick | None = None,
        out_of_time: Callable[[], bool] = lambda: False,
    ) -> None:
        self.arena, self.proposer, self.options = arena, proposer, options
        self.on_tick, self.out_of_time = on_tick, out_of_time
        self.rungs = options.rungs(arena.max_epochs)
        self.trials: list[Trial] = []
        self._gains: list[bool] = []
        self._proposing = True

    @property
    def complete(self) -> list[Trial]:
        """Trials that trained to the end, the best first."""
        return sorted((one for one in self.trials if one.end == "complete"), key=_by_loss)

    @property
    def best(self) -> list[Trial]:
        """As many as were to train to the end, or fewer: those that came furthest, of equals the best."""
        trained = [one for one in self.trials if one.rungs and one.end != "failed"]
        return sorted(trained, key=_by_progress)[: self.options.min_complete]

    def run(self) -> list[Trial]:
        """Train until nothing is left to try.

        Returns:
            All trials, by number.
        """
        while not self.trials or not self.out_of_time():
            moves = self._promotions() | self._beginners()
            if not moves:
                moves = self._last_promotions()
            if not moves:
                break
            self._tick(moves)
        self._prune(everyone=True)
        self._tell()
        return self.trials

    def _tell(self) -> None:
        if self.on_tick is not None:
            self.on_tick(self.trials)

    def _tick(self, moves: dict[int, int]) -> None:
        """Train each trial of `moves` to the end of its rung."""
        best = min((one.loss for one in self.trials if one.number not in moves), default=math.inf)
        self.arena.advance({number: self.rungs[rung] for number, rung in moves.items()})
        for number, rung in moves.items():
            self._score(self.trials[number], self.rungs[rung])
        self._note_gain(moves, best)
        self._prune()
        self._tell()

    def _score(self, trial: Trial, epochs: int) -> None:
        curve = self.arena.curve(trial.number)[:epochs]
        trial.engine, trial.seconds = self.arena.engine(trial.number), self.arena.seconds(trial.number)
        if not curve or (len(curve) < epochs and self.arena.failed(trial.number)):
            trial.end = "failed"
            self.proposer.tell(trial.number, math.nan)
            return
        trial.rungs[epochs] = min(curve)
        self.proposer.report(trial.number, epochs, trial.loss)
        if epochs == self.rungs[-1]:
            trial.end = "complete"
            self.proposer.tell(trial.number, trial.loss)

    # Who goes on

    def _beginners(self) -> dict[int, int]:
        count = min(self.options.batch_size, self.options.num_trials - len(self.trials))
        self._proposing = self._proposing and count > 0 and not self._has_stalled()
        if not self._proposing:
            return {}
        proposals = self.proposer.ask(count)
        self.trials += [Trial(one.number, one.recipe, one.origin, one.params) for one in proposals]
        self.arena.enter({one.number: one.recipe for one in proposals})
        return {one.number: 0 for one in proposals}

    def _promotions(self) -> dict[int, int]:
        moves: dict[int, int] = {}
        for rung in range(len(self.rungs) - 1):
            ranked = self._ranked(rung)
            # Nothing is known yet of how well the first rungs predict: the first batch goes one further as a whole.
            is_first = rung == 0 and len(self.trials) <= self.options.batch_size and len(self.rungs) > 2
            quota = len(ranked) if is_first else len(ranked) // self.eta(rung)
            moves |= {one.number: rung + 1 for one in ranked[:quota] if self._stands_at(one, rung)}
        return moves

    def _last_promotions(self) -> dict[int, int]:
        """Enough of the best go on for as many to train to the end as were asked for."""
        missing = self.options.min_complete - len(self.complete)
        standing = sorted((one for one in self.trials if not one.end), key=_by_progress)
        return {one.number: self.rungs.index(one.epochs) + 1 for one in standing[: max(0, missing)]}

    def _prune(self, *, everyone: bool = False) -> None:
        """Let go whoever cannot be promoted any more, however the trials to come may do."""
        gone = []
        for rung in range(len(self.rungs) - 1):
            ranked = self._ranked(rung)
            expected = self.options.num_trials if self._proposing else len(ranked)
            quota = max(self.options.min_complete, self.options.batch_size, expected // 2)
            gone += [one for one in ranked[quota:] if self._stands_at(one, rung)]
        if everyone:
            gone = [one for one in self.trials if not one.end]
        for trial in gone:
            trial.end = "pruned" if trial.rungs else "failed"
            self.proposer.tell(trial.number, None if trial.rungs else math.nan)
        self.arena.leave([one.number for one in gone if one not in self.best])

    def _ranked(self, rung: int) -> list[Trial]:
        """The trials that have come to the end of a rung, the best first."""
        epochs = self.rungs[rung]
        there = [one for one in self.trials if epochs in one.rungs]
        return sorted(there, key=lambda one: (one.rungs[epochs], one.number))

    def _stands_at(self, trial: Trial, rung: int) -> bool:
        return not trial.end and trial.epochs == self.rungs[rung]

    def eta(self, rung: int) -> int:
        """One trial in so many goes on from a rung.

        Where it is measured: 4 if Spearman's correlation with the losses at the next rung is above 0.6, 3 if above 0.3,
        else 2; 3 as long as fewer than six trials have reached it.
        """
        if self.options.eta is not None:
            return self.options.eta
        here, there = self.rungs[rung], self.rungs[rung + 1]
        pairs = [(one.rungs[here], one.rungs[there]) for one in self.trials if there in one.rungs]
        if len(pairs) < _FEWEST_FOR_CORRELATION:
            return 3
        correlation = _rank_correlation(pairs)
        return 4 if correlation > 0.6 else 3 if correlation > 0.3 else 2

    # When more search buys less than its noise

    def _note_gain(self, moves: dict[int, int], best: float) -> None:
        if not any(rung == 0 for rung in moves.values()):
            return
        found = min((self.trials[number].loss for number in moves), default=math.inf)
        self._gains.append(best - found > self.arena.noise())

    def _has_stalled(self) -> bool:
        # While trials still climb, losses fall whatever is proposed; so a stall is one of whole batches, in a row.
        recent = self._gains[-self.options.patience :]
        return len(recent) == self.options.patience and not any(recent)


def _rank_correlation(pairs: Sequence[tuple[float, float]]) -> float:
    """Spearman's; 0 where one side does not vary, since it then says nothing of the other."""
    ranks = rankdata(np.array(pairs), axis=0)
    if (ranks.std(axis=0) == 0).any():
        return 0.0
    return float(np.corrcoef(ranks.T)[0, 1])


def _by_progress(trial: Trial) -> tuple[int, float, int]:
    return -trial.epochs, trial.loss, trial.number


def _by_loss(trial: Trial) -> tuple[float, int]:
    return trial.loss, trial.number
