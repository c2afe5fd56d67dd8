"""The candidates that a search of recipes brings: the bare network, the best single one, and the ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from poise.estimators._candidates import BEST, Candidates, OnEpoch, Trained, TrainingOptions
from poise.estimators._result import MemberNote, SearchNote
from poise.recipe import to_toml
from poise.train import Dataset, Task
from poise.tuning import TableSearch, TableSearchOptions, TrainedTrial, search_table


def search_candidates(
    data: Dataset, task: Task, options: TrainingOptions, on_epoch: OnEpoch | None = None
) -> Candidates:
    """Search recipes, and compare what was found with the bare network.

    Args:
        data: All rows that may be learnt from; equal rows are merged.
        task: What to predict.
        options: Seed, validation share, time, quality and folder.
        on_epoch: Called after every epoch of every network.

    Raises:
        DataError: If fewer than two different rows are left.
        TrainingError: If no network ended with finite weights.
    """
    found = search_table(
        data,
        task,
        TableSearchOptions(
            quality=options.quality,
            seed=options.seed,
            val_fraction=options.val_fraction,
            time_limit=options.time_limit,
            folder=options.folder,
            engines=options.engines,
            on_note=options.on_note,
            on_epoch=on_epoch,
            on_trials=options.on_trials,
        ),
    )
    best = _trained(BEST, found.best)
    bare = () if found.bare is None else (_trained("bare", found.bare),)
    failed = tuple(f"trial {one.number}" for one in found.trials if one.end == "failed")
    return Candidates(found.data, (*bare, best), best, failed if found.bare is not None else ("bare", *failed), found)


def search_note(search: TableSearch) -> SearchNote:
    """What a search tried and found, as plain data."""
    task_scale = search.best.state.target_scale**2 if search.task.kind == "regression" else 1.0
    choice, trials = search.choice, search.trials
    return SearchNote(
        num_trials=len(trials),
        num_complete=sum(one.end == "complete" for one in trials),
        num_failed=sum(one.end == "failed" for one in trials),
        num_folds=len(search.members[0]),
        max_epochs=search.effort.max_epochs,
        epochs=sum(one.epochs for one in trials),
        loss=choice.loss / task_scale,
        naive_loss=choice.naive_loss / task_scale,
        single_loss=choice.single_loss / task_scale,
        seconds=search.seconds,
        members=tuple(_member_note(search.members[index], float(choice.weights[index])) for index in choice.chosen),
    )


def _member_note(networks: Sequence[TrainedTrial], weight: float) -> MemberNote:
    trial = networks[0].trial
    val_loss = fmean(one.state.val_loss for one in networks)
    return MemberNote(trial.number, trial.origin, weight, len(networks), val_loss, to_toml(trial.recipe))


def _trained(name: str, one: TrainedTrial) -> Trained:
    return Trained(one.plan.named(name), one.state, one.predictor)
