"""The networks of a cross-validation, kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from poise._checks import Interval, check_choice, check_integer
from poise.data import fold_rows
from poise.ensemble._average import Average
from poise.ensemble._held_out import held_out
from poise.ensemble._job import Job, members_of
from poise.ensemble._strategy import EnsembleStrategy, TrainedEnsemble
from poise.train import Plan, Rows


@dataclass(frozen=True)
class FoldEnsemble(EnsembleStrategy):
    """The same recipe on all rows but a fold: ŷ(x) = Σ_m ŷ_m(x) / (K R), member m trained without its fold of the rows.

    Each row is left out by R members, and their mean is its out-of-fold prediction. Folds hold every class in its
    share; the only row of a class is in no fold.

    Args:
        num_folds: K, in [2, 1000].
        num_repeats: R, in [1, 1000]: how often the rows are dealt into folds anew.
        validate: What the recipe's early stopping looks at. "inside": `val_fraction` of the rows that are not in the
            fold, so that out-of-fold predictions are of untouched rows. "fold": the fold itself; members then learn
            from more rows, and out-of-fold scores are too good by a little. Without early stopping there is no
            difference: all rows outside the fold train.

    Example:
        >>> import numpy as np, polars as pl
        >>> from poise import Budget, FoldEnsemble, Network, Recipe, infer_schema
        >>> from poise.train import Dataset, Regression
        >>> table = pl.DataFrame({"x": np.linspace(-1, 1, 60)})
        >>> data = Dataset(table, infer_schema(table), table["x"].to_numpy() ** 2, np.ones(60))
        >>> recipe = Recipe(budget=Budget(3, 16), network=Network(width=8, depth=1))
        >>> ensemble = FoldEnsemble(num_folds=3).train(data, Regression(), recipe)
        >>> ensemble.held_out.predictions.shape, set(ensemble.held_out.num_members.tolist())
        ((60,), {1})

    Reference: Krogh and Vedelsby, "Neural network ensembles, cross validation, and active learning", NIPS 1995.
    """

    num_folds: int = 5
    num_repeats: int = 1
    validate: Literal["inside", "fold"] = "inside"

    def __post_init__(self) -> None:
        check_integer("num_folds", self.num_folds, Interval(2, 1000))
        check_integer("num_repeats", self.num_repeats, Interval(1, 1000))
        check_choice("validate", self.validate, ("inside", "fold"))

    def _train(self, job: Job) -> TrainedEnsemble:
        folds = self._folds(job)
        plans = [self._plan(job, name, rows) for name, rows in folds.items()]
        members, notes = members_of(plans, job.train(plans))
        chosen_by = job.stops_early and self.validate == "fold"
        judged = held_out(job, [(one, folds[one.plan.name]) for one in members], is_untouched=not chosen_by)
        missed = int((judged.num_members[job.rows] == 0).sum())
        if missed:
            notes.append(f"{missed} of {len(job.rows)} rows have no out-of-fold prediction.")
        return TrainedEnsemble(Average([one.predictor for one in members]), tuple(members), tuple(notes), judged)

    def _folds(self, job: Job) -> dict[str, Rows]:
        found: dict[str, Rows] = {}
        for repeat in range(self.num_repeats):
            key, classes = job.key.stream("folds", repeat), job.classes_of(job.rows)
            dealt = fold_rows(len(job.rows), self.num_folds, key=key, classes=classes)
            found |= {f"fold-{repeat}-{fold}": job.rows[rows] for fold, rows in enumerate(dealt)}
        return found

    def _plan(self, job: Job, name: str, fold: Rows) -> Plan:
        train_rows, val_rows = np.setdiff1d(job.rows, fold), fold
        if job.stops_early and self.validate == "inside":
            train_rows, val_rows = job.split(train_rows, job.key.stream("split", name))
        return job.plan(name, train_rows, val_rows, job.key.stream("member", name).seed)
