"""What an ablation found out, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from poise._errors import ConfigError
from poise.tuning._ablation_design import DesignName, Kind
from poise.tuning._decisions import Verdict


@dataclass(frozen=True)
class Estimate:
    """A value with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Run:
    """One training of an arm.

    Args:
        arm: Name.
        block: Index of the split and seed that all arms share.
        train_loss: Over the training rows, in eval mode; None if no epoch ended with finite losses.
        val_loss: The same over the validation rows.
        test_loss: The same over the test rows.
        epochs: Done.
        max_epochs: Planned.
        steps_an_epoch: Optimizer steps.
        seconds: Of training.
        reached_epoch: First epoch with a validation loss as low as the lowest of the arm "none" in the same block; None
            if there was none.
        reached_seconds: When that was.
        stopped: "budget", "early" or "non-finite".
    """

    arm: str
    block: int
    train_loss: float | None
    val_loss: float | None
    test_loss: float | None
    epochs: int
    max_epochs: int
    steps_an_epoch: int
    seconds: float
    reached_epoch: int | None
    reached_seconds: float | None
    stopped: str

    @property
    def gap(self) -> float | None:
        """Test loss minus training loss; positive means overfitting."""
        return None if self.test_loss is None or self.train_loss is None else self.test_loss - self.train_loss

    @property
    def restricted_steps(self) -> int:
        """Steps to the target, or all that were planned where it was not reached."""
        return self.steps_an_epoch * (self.reached_epoch or self.max_epochs)

    @property
    def restricted_seconds(self) -> float:
        """Seconds to the target, or what all planned epochs would have taken where it was not reached."""
        if self.reached_seconds is not None:
            return self.reached_seconds
        return self.seconds / max(1, self.epochs) * self.max_epochs


@dataclass(frozen=True)
class Arm:
    """What was trained.

    Args:
        name: "all", "none", "without ..." or "only ...".
        num_blocks: Trainings.
        num_failed: Of them, without a finite loss.
        train_loss: Mean over the others; None if there are none.
        test_loss: Likewise.
        seconds: Of all its trainings.
        recipe_toml: The recipe.
    """

    name: str
    num_blocks: int
    num_failed: int
    train_loss: float | None
    test_loss: float | None
    seconds: float
    recipe_toml: str


@dataclass(frozen=True)
class Effect:
    """What an ingredient does.

    Args:
        name: Of the ingredient, of two ("A × B"), or "whole recipe".
        kind: "ingredient", "pair" or "recipe".
        verdict: "helps" (lowers the test loss), "hurts", "no effect" (beyond the margin) or "cannot tell". Of a pair:
            the two together do more than each of them by itself, or less.
        loss: Test loss with it minus test loss without it; the interval holds at every look and decides the verdict.
            None with fewer than two blocks.
        level: Chance that an interval made like this misses.
        num_blocks: Paired differences behind it.
        gap: Test minus training loss, with it minus without it; 95 %, not corrected for many ingredients.
        steps: Steps to the target with it over steps without it, a ratio of restricted means; 95 %, not corrected. None
            for pairs, and where neither reached it.
        seconds: The same in seconds.
        reached_with: Blocks in which the network with it reached the target.
        reached_without: Blocks in which the network without it did.
    """

    name: str
    kind: Kind
    verdict: Verdict
    loss: Estimate | None
    level: float
    num_blocks: int
    gap: Estimate | None = None
    steps: Estimate | None = None
    seconds: Estimate | None = None
    reached_with: int = 0
    reached_without: int = 0

    def shown(self, name: Literal["loss", "gap", "steps", "seconds"]) -> str:
        """An estimate with its interval as text; "" where there is none.

        Args:
            name: Of the estimate; differences get a sign, factors do not.
        """
        found: Estimate | None = getattr(self, name)
        if found is None:
            return ""
        form = "+z.4f" if name in ("loss", "gap") else ".2f"
        return f"{found.value:{form}} [{found.low:{form}}, {found.high:{form}}]"


@dataclass(frozen=True)
class AblationResult:
    """All that `poise ablate` says.

    Args:
        source: File.
        target: Column that is predicted.
        task: "binary", "multiclass" or "regression".
        loss_name: "log loss" or "squared error".
        design: "leave-one-out", "add-one-in" or "pairs".
        num_rows: Different rows.
        num_blocks: Splits and seeds on which arms were trained.
        margin: Effects on the test loss that are smaller do not matter.
        effects: One for each ingredient, for each pair, and of the whole recipe against the bare network.
        arms: What was trained.
        runs: Every training.
        ended: "decided", "blocks" (as many as allowed) or "time".
        verdict: One or two sentences with numbers.
        seconds: In all.
        run_folder: Where it is kept.
        warnings: What the reader should know.
        environment: Versions, processor, threads, seed.

    Example:
        >>> import polars
        >>> from poise import Budget, Network, Recipe, ablate
        >>> from poise.methods import Dropout
        >>> table = polars.DataFrame({"x": [i * i % 61 for i in range(60)], "z": ["a", "b"] * 30})
        >>> recipe = Recipe((Dropout(p=0.2),), budget=Budget(max_epochs=2), network=Network(width=8, depth=1))
        >>> result = ablate(table, target="z", recipe=recipe, max_blocks=5)
        >>> AblationResult.from_dict(result.to_dict()) == result
        True
    """

    source: str
    target: str
    task: str
    loss_name: str
    design: DesignName
    num_rows: int
    num_blocks: int
    margin: float
    effects: tuple[Effect, ...]
    arms: tuple[Arm, ...]
    runs: tuple[Run, ...]
    ended: str
    verdict: str
    seconds: float
    run_folder: str = ""
    warnings: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON takes it."""
        plain = asdict(self)
        return plain | {name: list(plain[name]) for name in ("effects", "arms", "runs", "warnings")}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> AblationResult:
        """The result whose `to_dict` this is."""
        parts = {
            "effects": tuple(_effect(one) for one in plain["effects"]),
            "arms": tuple(Arm(**one) for one in plain["arms"]),
            "runs": tuple(Run(**one) for one in plain["runs"]),
            "warnings": tuple(plain["warnings"]),
        }
        return cls(**{**plain, **parts})

    def effect(self, name: str) -> Effect:
        """The effect called `name`.

        Args:
            name: Of an ingredient, of two ("A × B"), or "whole recipe".

        Raises:
            ConfigError: If there is none.
        """
        for one in self.effects:
            if one.name == name:
                return one
        known = ", ".join(one.name for one in self.effects)
        raise ConfigError(f"There is no effect {name!r}.", where="`name`", repair=f"There are {known}.")


def _effect(plain: dict[str, Any]) -> Effect:
    names = ("loss", "gap", "steps", "seconds")
    return Effect(**{**plain, **{name: plain[name] and Estimate(**plain[name]) for name in names}})


@dataclass(frozen=True)
class AblationProgress:
    """Where an ablation stands: reported whenever a training has ended, and before the first if that takes long.

    Args:
        first_block: Of the stage.
        last_block: Of the stage.
        num_ended: Trainings of the stage that have ended.
        num_trainings: Trainings of the stage.
        seconds: Since the stage began.
        note: What takes long before the first epoch, or what was decided after the stage; else "".

    Example:
        >>> AblationProgress(0, 4, num_ended=3, num_trainings=50, seconds=1.5).num_ended
        3
    """

    first_block: int
    last_block: int
    num_ended: int
    num_trainings: int
    seconds: float
    note: str = ""
