"""Networks on bootstrap samples of the rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from poise._checks import Interval, check_integer
from poise._errors import DataError
from poise.ensemble._average import Average
from poise.ensemble._held_out import HeldOut, held_out
from poise.ensemble._job import Job, TrainedMember, members_of
from poise.ensemble._strategy import EnsembleStrategy, TrainedEnsemble
from poise.train import Plan, Rows

_TRIES = 1000


@dataclass(frozen=True)
class Bagging(EnsembleStrategy):
    """The same recipe on bootstrap samples: ŷ(x) = Σ_m ŷ_m(x) / M, member m trained on N rows drawn with replacement.

    A row that is drawn twice is two training rows. About N / e rows are in no sample of a member; the ensemble's score
    on them, each row judged by the members that did not draw it, is the out-of-bag score. These rows take no part in
    the training: where the recipe stops early, `val_fraction` of the rows *within* a bag, with all their copies, are
    its validation rows; else a bag is trained on whole, and what the history calls validation is the out-of-bag rows,
    which then choose nothing. A bag is drawn again if it misses a class, or leaves no row out.

    Args:
        num_members: M, in [2, 10000].

    Example:
        >>> import numpy as np, polars as pl
        >>> from poise import Bagging, Budget, Network, Recipe, infer_schema
        >>> from poise.train import Dataset, Regression
        >>> table = pl.DataFrame({"x": np.linspace(-1, 1, 60)})
        >>> data = Dataset(table, infer_schema(table), table["x"].to_numpy() ** 2, np.ones(60))
        >>> recipe = Recipe(budget=Budget(3, 16), network=Network(width=8, depth=1))
        >>> ensemble = Bagging(num_members=8).train(data, Regression(), recipe)
        >>> loss = ensemble.held_out.loss
        >>> bool(loss.low < loss.value < loss.high)
        True

    Reference: Breiman, "Bagging predictors", Machine Learning 24, 1996; "Out-of-bag estimation", 1996.
    """

    num_members: int = 20

    def __post_init__(self) -> None:
        check_integer("num_members", self.num_members, Interval(2, 10_000))

    def _train(self, job: Job) -> TrainedEnsemble:
        bags = [_counts(job, index) for index in range(self.num_members)]
        plans = [_plan(job, index, counts) for index, counts in enumerate(bags)]
        members, notes = members_of(plans, job.train(plans))
        judged = _judged(job, members, plans, bags)
        notes += _of_rows_in_every_bag(job, judged)
        return TrainedEnsemble(Average([one.predictor for one in members]), tuple(members), tuple(notes), judged)


def _counts(job: Job, member: int) -> Rows:
    """How often each of the job's rows is in the bag of a member."""
    num_rows, classes = len(job.rows), job.classes_of(job.rows)
    key = job.key.stream("bag", member)
    for attempt in range(_TRIES):
        counts = np.bincount(key.at(attempt).integers(num_rows, num_rows).numpy(), minlength=num_rows)
        is_whole = classes is None or len(np.unique(classes[counts > 0])) == len(np.unique(classes))
        if is_whole and (counts == 0).any():
            return counts
    raise DataError(
        f"None of {_TRIES} bootstrap samples of {num_rows} rows held every class and left a row out.",
        repair="Give more rows of the rare classes, or merge these, or use FoldEnsemble or DeepEnsemble.",
    )


def _plan(job: Job, member: int, counts: Rows) -> Plan:
    seed = job.key.stream("member", member).seed
    inside, outside = job.rows[counts > 0], job.rows[counts == 0]
    train_rows, val_rows = job.split(inside, job.key.stream("split", member)) if job.stops_early else (inside, outside)
    copies = counts[np.searchsorted(job.rows, train_rows)]
    return job.plan(f"bag-{member}", np.repeat(train_rows, copies), val_rows, seed)


def _judged(job: Job, members: list[TrainedMember], plans: list[Plan], bags: list[Rows]) -> HeldOut:
    outside = {plan.name: job.rows[counts == 0] for plan, counts in zip(plans, bags, strict=True)}
    return held_out(job, [(member, outside[member.plan.name]) for member in members])


def _of_rows_in_every_bag(job: Job, judged: HeldOut) -> list[str]:
    missed = int((judged.num_members[job.rows] == 0).sum())
    said = f"{missed} of {len(job.rows)} rows are in every bag and have no out-of-bag prediction: use more members."
    return [said] if missed else []
