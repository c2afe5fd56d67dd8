"""Networks that differ by their seeds."""

from __future__ import annotations

from dataclasses import dataclass

from poise._checks import Interval, check_integer
from poise.ensemble._average import Average
from poise.ensemble._job import Job, members_of
from poise.ensemble._strategy import EnsembleStrategy, TrainedEnsemble


@dataclass(frozen=True)
class DeepEnsemble(EnsembleStrategy):
    """The same recipe on the same rows with other initial weights, batches and masks: ŷ(x) = Σ_m ŷ_m(x) / M.

    All members share one split into training and validation rows, and one encoder.

    Args:
        num_members: M, in [2, 10000].

    Example:
        >>> import numpy as np, polars as pl
        >>> from poise import Budget, DeepEnsemble, Network, Recipe, infer_schema
        >>> from poise.train import Dataset, Regression
        >>> table = pl.DataFrame({"x": np.linspace(-1, 1, 60)})
        >>> data = Dataset(table, infer_schema(table), table["x"].to_numpy() ** 2, np.ones(60))
        >>> recipe = Recipe(budget=Budget(3, 16), network=Network(width=8, depth=1))
        >>> ensemble = DeepEnsemble(num_members=3).train(data, Regression(), recipe)
        >>> len(ensemble.members), ensemble.predictor.predict(table).shape
        (3, torch.Size([60]))

    Reference: Lakshminarayanan, Pritzel and Blundell, "Simple and scalable predictive uncertainty estimation using deep
    ensembles", NeurIPS 2017.
    """

    num_members: int = 5

    def __post_init__(self) -> None:
        check_integer("num_members", self.num_members, Interval(2, 10_000))

    def _train(self, job: Job) -> TrainedEnsemble:
        train_rows, val_rows = job.split(job.rows, job.key.stream("split"))
        seeds = [job.key.stream("member", index).seed for index in range(self.num_members)]
        plans = [job.plan(f"member-{index}", train_rows, val_rows, seed) for index, seed in enumerate(seeds)]
        members, notes = members_of(plans, job.train(plans))
        return TrainedEnsemble(Average([one.predictor for one in members]), tuple(members), tuple(notes))
