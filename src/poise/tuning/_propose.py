"""Which recipe to try next: known-good ones first, then what an Optuna sampler asks for."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from poise._errors import ConfigError
from poise._random import Key
from poise.recipe import Recipe
from poise.tuning._space import Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import Trial as OptunaTrial

_MOST_TRIES = 1000
_STARTUP = 16


@dataclass(frozen=True)
class Proposal:
    """A recipe to try.

    Args:
        number: Of the trial, from 0.
        recipe: What to train.
        origin: Name in the portfolio, or of the sampler.
        params: Its parameters in the space; None for a recipe of the portfolio that the space does not hold.
    """

    number: int
    recipe: Recipe
    origin: str
    params: Mapping[str, Any] | None


class Proposer:
    """Proposes recipes, in batches if need be, and learns from their losses.

    What it proposes depends on the seed and on what it was told, in which order, and on nothing else: a search that is
    run again from its beginning asks for the same recipes.

    Args:
        space: Of which all proposals but the portfolio's are.
        portfolio: Recipes to try first, by name, whether in the space or not.
        sampler: Of Optuna; None for its tree-structured Parzen estimator, seeded.
        seed: Names the random numbers.

    Reference: Bergstra et al., "Algorithms for hyper-parameter optimization", NeurIPS 2011. Akiba et al., "Optuna", KDD
    2019.
    """

    def __init__(
        self,
        space: Space,
        *,
        portfolio: Mapping[str, Recipe] | None = None,
        sampler: BaseSampler | None = None,
        seed: int = 0,
    ) -> None:
        self.space, self._sampler, self._seed = space, sampler, seed
        self._waiting = deque((portfolio or {}).items())
        self._asked: dict[int, OptunaTrial] = {}
        self._number = 0
        self._study: Study | None = None

    def ask(self, count: int) -> list[Proposal]:
        """The next `count` recipes.

        Raises:
            ConfigError: If the space hardly holds a recipe that breaks no rule.
        """
        return [self._from_portfolio() if self._waiting else self._from_sampler() for _ in range(count)]

    def report(self, number: int, epoch: int, loss: float) -> None:
        """Tell the validation loss of a trial that may go on."""
        if number in self._asked:
            self._asked[number].report(loss, epoch)

    def tell(self, number: int, loss: float | None) -> None:
        """Tell that a trial has ended: with its loss, with None if it was cut short, or with NaN if it failed."""
        from optuna.trial import TrialState

        trial = self._asked.pop(number, None)
        if trial is None or self._study is None:
            return
        if loss is None:
            self._study.tell(trial, state=TrialState.PRUNED)
        elif loss == loss:  # noqa: PLR0124 - NaN differs from itself
            self._study.tell(trial, loss)
        else:
            self._study.tell(trial, state=TrialState.FAIL)

    def _from_portfolio(self) -> Proposal:
        name, recipe = self._waiting.popleft()
        try:
            params = self.space.params(recipe)
        except ConfigError:
            return self._numbered(recipe, name, None)
        self.study.enqueue_trial(params)
        trial, _ = self._ask()
        return self._numbered(recipe, name, trial)

    def _from_sampler(self) -> Proposal:
        from optuna.trial import TrialState

        if not self.space.ranges:
            raise ConfigError("The space has no ranges to search.", repair="Give `ranges`, or only known recipes.")
        for _ in range(_MOST_TRIES):
            trial, recipe = self._ask()
            if self.space.is_valid(recipe):
                return self._numbered(recipe, type(self.study.sampler).__name__, trial)
            self.study.tell(trial, state=TrialState.FAIL)  # without training
        raise ConfigError(
            f"Of {_MOST_TRIES} recipes of the space, none keeps the rules.",
            where="`space`",
            repair="See check_recipe for what speaks against a combination, and leave it out of the ranges.",
        )

    def _numbered(self, recipe: Recipe, origin: str, trial: OptunaTrial | None) -> Proposal:
        number, self._number = self._number, self._number + 1
        if trial is not None:
            self._asked[number] = trial
        return Proposal(number, recipe, origin, None if trial is None else trial.params)

    def _ask(self) -> tuple[OptunaTrial, Recipe]:
        trial = self.study.ask()
        return trial, self.space.suggest(trial)

    @property
    def study(self) -> Study:
        """Optuna's study of what was asked, in memory."""
        if self._study is None:
            import optuna

            with quiet_optuna():
                self._study = optuna.create_study(sampler=self._sampler or self._default_sampler())
        return self._study

    def _default_sampler(self) -> BaseSampler:
        from optuna.samplers import TPESampler

        seed = Key(self._seed).stream("sampler").seed % 2**32
        return TPESampler(seed=seed, n_startup_trials=_STARTUP, multivariate=True, group=True, constant_liar=True)


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Without Optuna's own lines on stderr, and without its warnings that an option may change."""
    import warnings

    from optuna.exceptions import ExperimentalWarning

    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        logger.setLevel(level)
