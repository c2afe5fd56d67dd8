"""A study on disk: every trial that has ended, as Optuna keeps it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poise._errors import ResumeError
from poise.recipe import to_toml
from poise.tuning._propose import quiet_optuna
from poise.tuning._space import Space
from poise.tuning._table_space import TABLE_SPACE
from poise.tuning._trial import Trial

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

NAME = "poise"


class StudyFile:
    """An SQLite file that Optuna and its dashboard read. A trial is written once, when it has ended, in one piece.

    So there is none that runs for ever after a process was killed, and a search that is run again from its beginning,
    as a resumed one is, finds the trials that it has written and leaves them.

    Args:
        path: Of the file; its folder exists.
        space: Of the recipes, whose ranges Optuna is told.
    """

    def __init__(self, path: Path, space: Space = TABLE_SPACE) -> None:
        self.path, self.space = path, space
        self._written: set[int] | None = None
        self._study: Study | None = None

    def update(self, trials: Sequence[Trial]) -> None:
        """Write those that have ended and are not there yet."""
        ended = [one for one in trials if one.end and one.number not in self.written]
        if not ended:
            return
        with quiet_optuna():
            self.study.add_trials([as_optuna(one, self.space) for one in ended])
        self.written.update(one.number for one in ended)

    @property
    def written(self) -> set[int]:
        """Numbers of the trials in the file."""
        if self._written is None:
            self._written = {one.user_attrs["number"] for one in self.study.trials} if self.path.exists() else set()
        return self._written

    @property
    def study(self) -> Study:
        """The study in the file, which is made if missing.

        Raises:
            ResumeError: If the file is damaged.
        """
        if self._study is None:
            self._study = _open(self.path)
        return self._study


def _open(path: Path) -> Study:
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with quiet_optuna():
            # One process writes at a time, so waiting for the disk at every step would only cost time; a process that
            # is killed loses nothing by it.
            storage = optuna.storages.RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 10}})
            return optuna.create_study(storage=storage, study_name=NAME, load_if_exists=True)
    except (SQLAlchemyError, RuntimeError) as error:
        raise ResumeError(
            f"The study cannot be read: {error}.", where=str(path), repair="Start the run anew in an empty folder."
        ) from error


def as_optuna(trial: Trial, space: Space) -> FrozenTrial:
    """A trial that has ended, as Optuna keeps it.

    Args:
        trial: With an end.
        space: That its parameters are of.
    """
    from optuna.trial import TrialState, create_trial

    states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
    params = dict(trial.params or {})
    return create_trial(
        state=states[trial.end],
        value=trial.loss if math.isfinite(trial.loss) else None,
        params=params,
        distributions={name: space.ranges[name].distribution() for name in params},
        user_attrs=_attributes(trial),
        intermediate_values=dict(trial.rungs),
    )


def _attributes(trial: Trial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "recipe": to_toml(trial.recipe),
        "origin": trial.origin,
        "engine": trial.engine,
        "seconds": round(trial.seconds, 4),
        "epochs": trial.epochs,
    }


def from_optuna(study: Study, space: Space) -> Mapping[str, Any]:
    """The recipes of a study's complete trials, the best first, as a portfolio to begin another search with.

    Args:
        study: Whose parameters are named as the space's.
        space: That they are of.

    Returns:
        Recipes by "trial 7" and so on.

    Raises:
        ConfigError: If a parameter is missing or outside its range.

    Example:
        >>> import optuna
        >>> from poise.recipe import Recipe
        >>> from poise.tuning import Float, Space
        >>> space = Space(Recipe(), {"network.width": Float(1, 2)})
        >>> study = optuna.create_study()
        >>> dict(from_optuna(study, space))
        {}
    """
    from optuna.trial import TrialState

    done = [one for one in study.trials if one.state == TrialState.COMPLETE]
    is_better = -1 if study.direction.name == "MAXIMIZE" else 1
    ranked = sorted(done, key=lambda one: is_better * (one.value or 0.0))
    return {f"trial {one.number}": space.recipe(one.params) for one in ranked}
