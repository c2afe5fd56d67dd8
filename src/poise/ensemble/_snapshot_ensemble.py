"""Several networks out of one training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from poise._checks import Interval, check_integer
from poise._errors import ConfigError, ResumeError
from poise.ensemble._average import Average
from poise.ensemble._held_out import row_losses
from poise.ensemble._job import Job, TrainedMember, members_of, serving
from poise.ensemble._strategy import EnsembleStrategy, TrainedEnsemble
from poise.fleet import Fleet
from poise.functional.schedule import CosineCycles, Schedule
from poise.methods import SWA, StopMethod
from poise.recipe import Recipe
from poise.train import Plan, Rows, State, load_state, save_state


@dataclass(frozen=True)
class SnapshotEnsemble(EnsembleStrategy):
    """One training whose learning rate falls to 0 and restarts S times: ŷ(x) = Σ_s ŷ_s(x) / S, ŷ_s of cycle s.

    It costs what one training costs. The recipe's epochs are divided among the cycles, rounded up to whole epochs for
    each; every cycle begins with the highest learning rate of the recipe. Each snapshot has its own exact population
    statistics, in the place of running ones that another part of the training has moved. Cycles have ends of their own,
    so no method of the recipe stops the training early. If it has one, the snapshot of a cycle is its epoch with the
    lowest validation loss, and the first snapshots are kept whose average has the lowest one; else it is the last
    epoch, and all are kept.

    Args:
        num_snapshots: S, in [2, 1000].

    Raises:
        ConfigError: From `train`, if the recipe has SWA: an average over the cycles would be every snapshot.

    Example:
        >>> import numpy as np, polars as pl
        >>> from poise import Budget, Network, Recipe, SnapshotEnsemble, infer_schema
        >>> from poise.train import Dataset, Regression
        >>> table = pl.DataFrame({"x": np.linspace(-1, 1, 60)})
        >>> data = Dataset(table, infer_schema(table), table["x"].to_numpy() ** 2, np.ones(60))
        >>> recipe = Recipe(budget=Budget(8, 16), network=Network(width=8, depth=1))
        >>> ensemble = SnapshotEnsemble(num_snapshots=3).train(data, Regression(), recipe)
        >>> [member.state.epoch for member in ensemble.members]
        [3, 6, 9]

    Reference: Huang et al., "Snapshot ensembles: train 1, get M for free", ICLR 2017.
    """

    num_snapshots: int = 5

    def __post_init__(self) -> None:
        check_integer("num_snapshots", self.num_snapshots, Interval(2, 1000))

    def _train(self, job: Job) -> TrainedEnsemble:
        cyclic = replace(job, recipe=_cyclic(job.recipe, self.num_snapshots))
        train_rows, val_rows = job.split(job.rows, job.key.stream("split"))
        # The name tells a folder of the one kind from one of the other.
        name = "best epochs of cycles" if job.stops_early else "cycles"
        plan = cyclic.plan(name, train_rows, val_rows, job.seed)
        epochs = math.ceil(plan.max_epochs / self.num_snapshots)
        plan = plan.with_max_epochs(epochs * self.num_snapshots)
        states = _Cycles(cyclic, plan, epochs, chooses=job.stops_early).snapshots()
        plans = [replace(plan, name=f"snapshot-{index}") for index in range(len(states))]
        members, notes = members_of(plans, states)
        if len(states) < self.num_snapshots:
            notes.append(
                f"The training did not stay finite after {states[-1].epoch} of {plan.max_epochs} epochs: "
                f"{len(states)} of {self.num_snapshots} snapshots."
            )
        if job.stops_early:
            number = _best_number(job, members, val_rows)
            if number < len(members):
                notes.append(f"The first {number} of {len(members)} snapshots are kept: more validate worse.")
            members = members[:number]
        return TrainedEnsemble(Average([one.predictor for one in members]), tuple(members), tuple(notes))


def _best_number(job: Job, members: Sequence[TrainedMember], val_rows: Rows) -> int:
    """How many of the first snapshots have the average with the lowest validation loss."""
    said = np.stack([one.predictor.predict(job.data.table[val_rows]).numpy() for one in members])
    counts = np.arange(1, len(members) + 1).reshape(-1, *[1] * (said.ndim - 1))
    averages = np.cumsum(said, axis=0) / counts
    weight, target = job.data.weight[val_rows], job.data.target[val_rows]
    losses = [np.average(row_losses(job.task, one, target), weights=weight) for one in averages]
    return int(np.argmin(losses)) + 1


def _cyclic(recipe: Recipe, num_cycles: int) -> Recipe:
    if recipe.get(SWA) is not None:
        raise ConfigError(
            "SWA averages the weights over the cycles whose ends are to differ.",
            where="`recipe`",
            repair="Leave SWA out of the recipe of a SnapshotEnsemble.",
        )
    lr = recipe.optimizer.lr
    start = max(lr.values) if isinstance(lr, Schedule) else lr
    methods = tuple(method for method in recipe.methods if not isinstance(method, StopMethod))
    optimizer = replace(recipe.optimizer, lr=CosineCycles(start, cycles=num_cycles))
    return replace(recipe, methods=methods, optimizer=optimizer)


class _Cycles:
    """One training, and its snapshots, kept in the folder where there is one.

    Args:
        job: With the cyclic recipe.
        plan: The training.
        epochs: Of each cycle.
        chooses: Whether the epoch with the lowest validation loss of a cycle is its snapshot, or the last one.
    """

    def __init__(self, job: Job, plan: Plan, epochs: int, *, chooses: bool) -> None:
        self.job, self.plan, self.epochs, self.chooses = job, plan, epochs, chooses
        self.fleet = Fleet([plan], job.data, folder=job.folder, engines=job.engines)
        self.folder = None if job.folder is None else job.folder / "snapshots"
        if self.folder is not None:
            self.folder.mkdir(exist_ok=True)
        self.cycle = 0
        self.best: State | None = None

    def snapshots(self) -> list[State]:
        """Train, and take one at each cycle; of a training that does not stay finite those before that."""
        found: list[State] = []
        for cycle in range(self.plan.max_epochs // self.epochs):
            self.cycle = cycle
            state = self._kept("snapshot") or self._train()
            if state.stopped == "non-finite" and found:
                break
            found.append(state)
            if state.stopped == "non-finite":
                break
        return found

    def _train(self) -> State:
        self.best = self._kept("best")
        end = (self.cycle + 1) * self.epochs
        state = self.fleet.advance(end, on_epoch=self._after_epoch)[0]
        if state.epoch > end:
            raise ResumeError(
                f"The training is at epoch {state.epoch}, but its snapshot of epoch {end} is missing.",
                where=str(self.job.folder),
                repair="Give an empty folder.",
            )
        is_whole = state.stopped != "non-finite"
        taken = self.best if self.chooses and self.best is not None and is_whole else _copy(state)
        self._keep(taken, "snapshot")
        return taken

    def _after_epoch(self, index: int, plan: Plan, state: State) -> None:
        if self.job.on_epoch is not None:
            self.job.on_epoch(index, plan, state)
        if self.chooses and (self.best is None or state.val_loss < self.best.val_loss):
            self.best = _copy(state)
            # Before the fleet's own checkpoint of this epoch, after which it would not come again.
            self._keep(self.best, "best")

    def _kept(self, kind: str) -> State | None:
        return None if self.folder is None else load_state(self.folder, f"{kind}-{self.cycle}")

    def _keep(self, state: State, kind: str) -> None:
        if self.folder is not None:
            save_state(state, self.folder, f"{kind}-{self.cycle}")


def _copy(state: State) -> State:
    kept = serving(state.tensors)
    return State.from_numbers({name: one.clone() for name, one in kept.items()}, state.numbers())
