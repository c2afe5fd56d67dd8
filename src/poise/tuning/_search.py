"""The best recipe for any torch model."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from poise._checks import Interval, check_choice, check_integer, check_real, check_type
from poise._errors import ConfigError, TrainingError
from poise.fleet.modules import Built, Job, Source, build, source_of
from poise.fleet.modules._job import ROWS_OF_A_SCORE
from poise.fleet.modules._objective import outputs_of
from poise.fleet.modules._plain import telling_of_failure
from poise.fleet.modules._record import mean_of
from poise.fleet.modules._seeded import seeded
from poise.fleet.modules._state import ModuleState
from poise.recipe import Recipe, to_toml
from poise.surgery import modes
from poise.tuning._halving import HalvingOptions, OnTick, Race
from poise.tuning._module_arena import EngineChoice, ModuleArena
from poise.tuning._propose import Proposer
from poise.tuning._run_folder import RunFolder
from poise.tuning._search_result import SearchResult, trial_numbers, trial_of
from poise.tuning._space import Space
from poise.tuning._study import StudyFile
from poise.tuning._trial import Trial

Metric = Callable[[Any, Tensor], Any]
_DEFAULT_EPOCHS = 30
_PROPOSED_TOGETHER = 8
_BEST = "best"


def search(
    factory: Callable[[], nn.Module], space: Space, *, train: Any, val: Any, loss: Callable[[Any, Tensor], Tensor],
    test: Any = None, metric: Metric | None = None, trials: int = 32, max_epochs: int | None = None, seed: int = 0,
    portfolio: Mapping[str, Recipe] | None = None, engine: EngineChoice = "auto", time_limit: float | None = None,
    folder: str | Path | None = None, progress: OnTick | None = None,
) -> SearchResult:  # fmt: skip
    """Find the recipe with which a model of your own has the lowest validation loss, by successive halving.

    Each trial is a new model of `factory` with a recipe of `space` put into it by `poise.apply`, trained by the
    recipe's own optimizer, and scored after every epoch in eval mode, without penalties, with averaged weights where
    the recipe averages, and with batch statistics over all training rows. All trials have the same initial weights,
    order of rows and random numbers. The first is the space's base as it is; then Optuna proposes. The better ones of
    each rung go on (`HalvingOptions`). A trial whose numbers are not finite stops, and disturbs no other.

    Trials of one structure train side by side through `torch.func`, if one pass of theirs, tried before, equals that of
    a model alone. Any other model trains alone, and `reasons` of the result says why.

    With a folder, the same call goes on where an interrupted one ended, and repeats no epoch that was kept; one that
    had ended gives its result again.

    Args:
        factory: Makes a new model, on the device to train on, each time it is called. It is seeded; its `nn.Dropout`s
            become those of `poise.nn`, whose masks have names.
        space: Of recipes. Its base says the optimizer, and the batch size where batches can be sized.
        train: Rows to learn from: a pair of tensors (x, y), a map-style dataset of such pairs, or a DataLoader of
            batches of them. x may be a tuple or dict of tensors where the model reads several.
        val: Rows that choose, likewise.
        loss: loss(outputs, targets), the mean over the rows, as `torch.nn.functional.cross_entropy`.
        test: Rows that are scored once, at the end, likewise.
        metric: metric(outputs, targets) over all rows, a number that is reported and chooses nothing.
        trials: Recipes to try, ≥ 1.
        max_epochs: Of a trial that is not cut short, ≥ 1; None for the base's, or 30. Schedules span it.
        seed: Names all random numbers.
        portfolio: Recipes to try after the base, by name, whether the space holds them or not.
        engine: "auto" stacks what gains by it, "stacked" whatever can be stacked, "plain" nothing.
        time_limit: Seconds, > 0, after which no trial begins or goes on to its next rung; None for no limit. The first
            batch of trials is always tried. With a limit the result depends on the machine.
        folder: For states of the trials, the result, and Optuna's `study.db` of what was tried; made if missing. None
            keeps nothing on disk.
        progress: Told all trials after each tick of the race.

    Returns:
        The recipe, the trained model, and all that was tried.

    Raises:
        ConfigError: If an argument is not as above, or the space varies what has no effect here.
        DataError: If rows cannot be used, or the model fails on them.
        TrainingError: If no trial has ended an epoch with finite numbers, or the model, its loss or its data fail.
        ResumeError: If the folder holds another search, or another process is at work there.

    Example:
        >>> import torch, poise
        >>> from torch import nn
        >>> from poise.methods import Dropout, LayerNorm, WeightDecay
        >>> from poise import Float, OneOf, Space
        >>> x = torch.linspace(-1, 1, 256).reshape(-1, 1)
        >>> y = (x[:, 0].abs() > 0.5).long()
        >>> space = Space(
        ...     poise.Recipe(methods=(WeightDecay(),), optimizer=poise.AdamW(lr=poise.Cosine(1e-2))),
        ...     {"norm": OneOf(None, LayerNorm()), "optimizer.lr": Float(1e-3, 1e-1, log=True)},
        ... )
        >>> result = poise.search(
        ...     lambda: nn.Sequential(nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 2)), space,
        ...     train=(x[::2], y[::2]), val=(x[1::2], y[1::2]), loss=nn.functional.cross_entropy,
        ...     trials=4, max_epochs=3,
        ... )
        >>> len(result.trials), result.model.training, result.best.end
        (4, False, 'complete')

    Reference: Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization", AISTATS
    2016. Bergstra et al., "Algorithms for hyper-parameter optimization", NeurIPS 2011.
    """
    started = time.monotonic()
    _check(space, trials, max_epochs, engine, time_limit)
    rows = _Rows.of(train, val, test)
    _check_space(space, rows.train)
    epochs = max_epochs or space.base.budget.max_epochs or _DEFAULT_EPOCHS
    job = Job(factory, rows.train, rows.val, loss, epochs, seed)
    weights = _check_job(job, space)
    with RunFolder(folder, resume=folder is not None) as run:
        first = {"base": space.base, **(portfolio or {})}
        if run.path is not None:
            run.write_config(_config(space, job, rows, first, trials, engine, weights))
        found = run.read_result(lambda numbers: _again(numbers, job, run))
        if found is not None:
            return found
        arena = ModuleArena(job, engine=engine, folder=run.checkpoints)
        options = HalvingOptions(num_trials=trials, batch_size=min(_PROPOSED_TOGETHER, trials))
        race = Race(
            arena, Proposer(space, portfolio=first, seed=seed), options, on_tick=_listeners(run, space, progress),
            out_of_time=lambda: time_limit is not None and time.monotonic() - started > time_limit,
        )  # fmt: skip
        all_trials = race.run()
        best = _best(race, all_trials)
        built = arena.model(best.number)
        scores = _scores(built.model, job, rows, metric)
        result = SearchResult(
            best.recipe, built.model, built.regimen, best, tuple(all_trials), arena.reasons(),
            **scores, seconds=time.monotonic() - started,
        )  # fmt: skip
        _keep(result, scores, arena.served(best.number), run)
    return result


@dataclass(frozen=True, eq=False)
class _Rows:
    train: Source
    val: Source
    test: Source | None

    @classmethod
    def of(cls, train: Any, val: Any, test: Any) -> _Rows:
        if val is train or (test is not None and (test is train or test is val)):
            raise ConfigError("`train`, `val` and `test` must be different rows, but two of them are the same object.")
        return cls(
            source_of(train, "train"), source_of(val, "val"), None if test is None else source_of(test, "test")
        )  # fmt: skip


def _check(space: object, trials: int, max_epochs: int | None, engine: str, time_limit: float | None) -> None:
    check_type("space", space, Space)
    check_integer("trials", trials, Interval(1))
    if max_epochs is not None:
        check_integer("max_epochs", max_epochs, Interval(1))
    check_choice("engine", engine, ("auto", "plain", "stacked"))
    if time_limit is not None:
        check_real("time_limit", time_limit, Interval(0, low_open=True))


def _check_space(space: Space, train: Source) -> None:
    for name in space.ranges:
        if name.startswith("network."):
            raise ConfigError(
                f"{name!r} has no effect: the network is `factory`'s.", where="`space`", repair="Leave it out."
            )
        if name == "budget.max_epochs":
            raise ConfigError("'budget.max_epochs' has no effect.", where="`space`", repair="Give `max_epochs`.")
        if name == "budget.batch_size" and not train.sizes_batches:
            raise ConfigError(
                "'budget.batch_size' has no effect: batches are as large as the DataLoader makes them.",
                where="`space`", repair="Leave it out, or give the dataset itself as `train`.",
            )  # fmt: skip
    if len(space.ranges) == 0:
        raise ConfigError("The space has no ranges to search.", where="`space`", repair="Give it some.")


def _check_job(job: Job, space: Space) -> str:
    """Raise unless the model can be trained; the digest of its initial weights."""
    x, y = job.example
    built = build(job, space.base)
    digest = hashlib.sha256()
    for name, one in sorted(built.tensors().items()):
        digest.update(name.encode() + one.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    with modes(built.model, training=False), torch.enable_grad(), telling_of_failure("the first score"):
        value = job.loss(*outputs_of(built.model, (x, y)))
    if not isinstance(value, Tensor) or value.ndim != 0:
        found = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ConfigError(f"`loss` must return a scalar tensor, the mean over the rows, but returned {found}.")
    if not value.requires_grad:
        raise ConfigError("`loss` has no gradient.", repair="Return a tensor that torch computed from the outputs.")
    return digest.hexdigest()


def _config(
    space: Space, job: Job, rows: _Rows, portfolio: Mapping[str, Recipe], trials: int, engine: str, weights: str
) -> dict[str, Any]:
    loss = getattr(job.loss, "__qualname__", type(job.loss).__qualname__)
    parts = {"train": rows.train, "val": rows.val, "test": rows.test}
    return {
        "portfolio": {name: to_toml(recipe) for name, recipe in portfolio.items()},
        "ranges": {name: repr(domain) for name, domain in space.ranges.items()}, "trials": trials,
        "max_epochs": job.max_epochs, "seed": job.seed, "engine": engine, "loss": loss, "weights": weights,
        "rows": {name: one.digest() for name, one in parts.items() if one is not None},
    }  # fmt: skip


def _listeners(run: RunFolder, space: Space, progress: OnTick | None) -> OnTick:
    """Who is told of each tick: the study on disk first."""
    study = None if run.path is None else StudyFile(run.path / "study.db", space)

    def tell(trials: Sequence[Trial]) -> None:
        if study is not None:
            study.update(trials)
        if progress is not None:
            progress(trials)

    return tell


def _best(race: Race, trials: Sequence[Trial]) -> Trial:
    # Cut short by the clock, a search may have none that is complete.
    ranked = race.complete or sorted(trials, key=lambda one: (one.loss, one.number))
    if not math.isfinite(ranked[0].loss):
        raise TrainingError(
            f"None of {len(trials)} trials ended an epoch with finite numbers.",
            repair="Lower the learning rate of the space, or scale the inputs.",
        )
    return ranked[0]


def _scores(model: nn.Module, job: Job, rows: _Rows, metric: Metric | None) -> dict[str, Any]:
    """Of the model that was chosen, over all rows of each kind."""
    train, _ = _score(model, job, rows.train, None)
    val, val_metric = _score(model, job, rows.val, metric)
    test, test_metric = (None, None) if rows.test is None else _score(model, job, rows.test, metric)
    return {
        "train_loss": train, "val_loss": val, "test_loss": test, "val_metric": val_metric, "test_metric": test_metric
    }  # fmt: skip


@torch.no_grad()
def _score(model: nn.Module, job: Job, source: Source, metric: Metric | None) -> tuple[float, float | None]:
    parts, counts, kept = [], [], []
    with seeded(job.key.stream("score")), telling_of_failure("the last score"):
        for pair in source.in_order(ROWS_OF_A_SCORE):
            outputs, y = outputs_of(model, pair)
            parts.append(float(job.loss(outputs, y)))
            counts.append(len(y))
            kept += [(outputs, y)] if metric is not None else []
        mean = mean_of(parts, counts)
        if metric is None:
            return mean, None
        if not all(isinstance(outputs, Tensor) for outputs, _ in kept):
            raise ConfigError("A metric needs a model that returns one tensor.", where="`metric`")
        return mean, float(metric(*(torch.cat(column) for column in zip(*kept, strict=True))))


def _keep(result: SearchResult, scores: dict[str, Any], served: ModuleState, run: RunFolder) -> None:
    if run.path is None:
        return
    served.save(run.path, _BEST, {"recipe": to_toml(result.recipe)})
    run.write_result({
        "trials": [trial_numbers(one) for one in result.trials], "best": result.best.number, "scores": scores,
        "reasons": {str(number): reason for number, reason in result.reasons.items()}, "seconds": result.seconds,
    })  # fmt: skip


def _again(numbers: dict[str, Any], job: Job, run: RunFolder) -> SearchResult:
    """The result of a search that had come to its end."""
    trials = tuple(trial_of(one) for one in numbers["trials"])
    best = trials[numbers["best"]]
    found = None if run.path is None else ModuleState.read(run.path, _BEST)
    if found is None:
        raise KeyError(_BEST)
    built: Built = build(job, best.recipe)
    built.load(found[0].tensors, "best.")
    built.model.eval()
    reasons = {int(number): reason for number, reason in numbers["reasons"].items()}
    return SearchResult(
        best.recipe, built.model, built.regimen, best, trials, reasons, **numbers["scores"], seconds=numbers["seconds"]
    )  # fmt: skip
