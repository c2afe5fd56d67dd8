"""What a fit found out, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from poise.train import Epoch


@dataclass(frozen=True)
class Interval:
    """A measured value with its bootstrap interval (95 %) over test rows."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Candidate:
    """One trained model in the comparison. Models that are not networks have no epochs, history or validation scores.

    Losses are cross-entropy in nats, or mean squared error in units of the target's variance. Scores are accuracy,
    or R².
    """

    name: str
    source: str
    chosen: bool
    train_loss: float
    val_loss: float | None
    test_loss: Interval
    train_score: float
    val_score: float | None
    test_score: Interval
    epochs: int
    best_epoch: int
    seconds: float
    recipe_toml: str = ""
    note: str = ""
    history: tuple[Epoch, ...] = ()

    @property
    def gap(self) -> float:
        """Test loss minus training loss; positive means overfitting."""
        return self.test_loss.value - self.train_loss


@dataclass(frozen=True)
class ColumnNote:
    """How a column was read."""

    name: str
    kind: str
    note: str


@dataclass(frozen=True)
class MemberNote:
    """A recipe of an ensemble.

    Args:
        trial: Number of the trial.
        origin: Name in the portfolio, or of the sampler that proposed it.
        weight: Of its networks together.
        num_networks: One for each fold.
        val_loss: Mean over the folds.
        recipe_toml: The recipe.

    Example:
        >>> MemberNote(3, "layer norm", weight=0.5, num_networks=5, val_loss=0.41, recipe_toml="").weight
        0.5
    """

    trial: int
    origin: str
    weight: float
    num_networks: int
    val_loss: float
    recipe_toml: str


@dataclass(frozen=True)
class SearchNote:
    """What a search tried and found.

    Args:
        num_trials: Recipes that were tried.
        num_complete: That trained to the end.
        num_failed: That ended with numbers that are not finite.
        num_folds: Parts of the rows that took turns in validation; 1 for a single split.
        max_epochs: Of a training that is not cut short.
        epochs: Of all trials together.
        loss: Of the ensemble on rows that had no part in choosing its members (nested folds).
        naive_loss: Of the ensemble on the rows that chose its members: too good to be true.
        single_loss: As `loss`, of the best single recipe.
        seconds: That the search took.
        members: The heaviest first.

    Example:
        >>> import polars
        >>> from poise import fit
        >>> table = polars.DataFrame({"x": [i % 13 for i in range(90)], "z": ["a", "b"] * 45})
        >>> note = fit(table, target="z", quality="fast").search
        >>> note.num_trials, note.num_folds
        (16, 1)
    """

    num_trials: int
    num_complete: int
    num_failed: int
    num_folds: int
    max_epochs: int
    epochs: int
    loss: float
    naive_loss: float
    single_loss: float
    seconds: float
    members: tuple[MemberNote, ...] = ()


@dataclass(frozen=True)
class FitResult:
    """All that `poise fit` says.

    Args:
        task: "binary", "multiclass" or "regression".
        score_name: "accuracy" or "R²".
        loss_name: "log loss" or "squared error".
        verdict: One sentence on what regularization bought, with numbers.
        warnings: What the reader should know of the data or the run.
        environment: Versions, processor, threads, seed.
        search: What was tried, if recipes were searched.

    Example:
        >>> import polars
        >>> from poise import fit
        >>> result = fit(polars.DataFrame({"x": list(range(60)), "z": ["a", "b"] * 30}), target="z", recipe="bare")
        >>> result.chosen.name, result.score_name, result.num_test
        ('bare', 'accuracy', 12)
    """

    source: str
    target: str
    task: str
    score_name: str
    loss_name: str
    num_train: int
    num_val: int
    num_test: int
    columns: tuple[ColumnNote, ...]
    candidates: tuple[Candidate, ...]
    verdict: str
    seconds: float
    run_folder: str = ""
    warnings: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    search: SearchNote | None = None

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> FitResult:
        """The result whose `dataclasses.asdict` this is."""
        candidates = tuple(_candidate(one) for one in plain["candidates"])
        columns = tuple(ColumnNote(**one) for one in plain["columns"])
        search = None if plain["search"] is None else _search_note(plain["search"])
        own = {"candidates": candidates, "columns": columns, "warnings": tuple(plain["warnings"]), "search": search}
        return cls(**{**plain, **own})

    @property
    def chosen(self) -> Candidate:
        """The candidate that validation chose."""
        return next(one for one in self.candidates if one.chosen)


def _candidate(plain: dict[str, Any]) -> Candidate:
    intervals = {name: Interval(**plain[name]) for name in ("test_loss", "test_score")}
    history = tuple(Epoch(**record) for record in plain["history"])
    return Candidate(**{**plain, **intervals, "history": history})


def _search_note(plain: dict[str, Any]) -> SearchNote:
    return SearchNote(**{**plain, "members": tuple(MemberNote(**one) for one in plain["members"])})


@dataclass(frozen=True)
class Progress:
    """Where a fit stands: reported after every epoch of every network, and before the first if that takes long.

    Args:
        name: Of the network's recipe.
        index: Which network it is, from 0.
        num_networks: How many there are; 0 where a search will still say.
        epoch: Epochs done.
        max_epochs: Epochs planned.
        val_loss: Of this epoch.
        seconds: Spent on this network.
        note: What takes long before the first epoch, such as compiling on a new machine; else "". With a note, the
            numbers are 0.

    Example:
        >>> Progress("bare", 0, 5, epoch=3, max_epochs=40, val_loss=0.5, seconds=1.2).epoch
        3
    """

    name: str
    index: int
    num_networks: int
    epoch: int
    max_epochs: int
    val_loss: float | None
    seconds: float
    note: str = ""
