"""Verdicts on many effects, each decided as soon as the blocks allow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from poise.tuning._looks import Looks

Verdict = Literal["helps", "hurts", "no effect", "cannot tell"]
_MIN_BLOCKS = 2
_FOR_DIFFERENCES = 0.8  # share of the level; the rest is for "no effect"


@dataclass(frozen=True)
class Decision:
    """What the differences say of one effect.

    Args:
        verdict: "no effect" (within ± margin), "helps" (else below zero), "hurts" (else above it) or "cannot tell".
        value: Mean difference.
        low: Lower end of its interval.
        high: Upper end.
        level: Chance that an interval made like this misses the truth at any look.
        num_blocks: Differences at the look that decided, or at the last one.
    """

    verdict: Verdict
    value: float
    low: float
    high: float
    level: float
    num_blocks: int

    @property
    def is_final(self) -> bool:
        """Whether more blocks are not needed."""
        return self.verdict != "cannot tell"


def decide(
    differences: Mapping[str, NDArray[np.float64]], seen: int, looks: Looks, *, margin: float, level: float = 0.05
) -> dict[str, Decision]:
    """Verdicts on a family of effects, after each look and with what is decided left alone.

    At each look every open effect gets an interval that holds at all looks at once (a repeated confidence interval).
    One that excludes zero decides "helps" or "hurts". Four fifths of the level are for these claims, shared by the m
    effects, and an effect that is so decided passes its share on to the others (Holm). A fifth of the level is for
    claims of "no effect", which a wider interval within ± margin decides, also where zero is not in it; these pass
    nothing on.

    Args:
        differences: Loss with minus loss without, for each block; NaN where a training failed or was not needed.
        seen: Blocks that have been trained.
        looks: When they are looked at.
        margin: Effects smaller than this do not matter, > 0.
        level: Chance of any false claim over the family and all looks, in (0, 1).

    Returns:
        A decision for each effect that has two differences or more.

    Reference: Jennison and Turnbull, "Group sequential methods", 1999, chapters 9 and 14; Holm, "A simple sequentially
        rejective multiple test procedure", Scand. J. Stat. 6, 1979; Maurer and Bretz, "Multiple testing in group
        sequential trials using graphical approaches", Stat. Biopharm. Res. 5, 2013; Schuirmann, J. Pharmacokinet.
        Biopharm. 15, 1987.
    """
    family = _Family(differences, looks, margin, level)
    for number, count in enumerate(looks.counts):
        if count <= seen:
            family.look(number)
    return family.decisions


class _Family:
    """Effects that share one error level."""

    def __init__(
        self, differences: Mapping[str, NDArray[np.float64]], looks: Looks, margin: float, level: float
    ) -> None:
        self.differences, self.looks, self.margin = differences, looks, margin
        self.level = _FOR_DIFFERENCES * level
        # An effect of the size of the margin has one end that must not be crossed, so the level counts double.
        self.idle_level = 2 * (level - self.level) / max(1, len(differences))
        self.decisions: dict[str, Decision] = {}

    def look(self, number: int) -> None:
        """Look at the blocks of look `number`, again as long as that frees a share of the level."""
        while True:
            before = self._share()
            for name in self.differences:
                if name not in self.decisions or not self.decisions[name].is_final:
                    self._judge(name, number, before)
            if self._share() == before:
                return

    def _share(self) -> float:
        found = sum(one.verdict in ("helps", "hurts") for one in self.decisions.values())
        return self.level / max(1, len(self.differences) - found)

    def _judge(self, name: str, number: int, level: float) -> None:
        sizes = [_finite(self.differences[name][:count]).size for count in self.looks.counts[: number + 1]]
        sizes = [size for size in sizes if size >= _MIN_BLOCKS]
        if not sizes:
            return
        values = _finite(self.differences[name][: self.looks.counts[number]])
        mean, spread = float(values.mean()), self.looks.spread(values)
        half = spread * self.looks.critical(sizes, level)
        wide = spread * self.looks.critical(sizes, self.idle_level)
        verdict: Verdict = "cannot tell"
        if abs(mean) + wide < self.margin:
            verdict = "no effect"
        elif abs(mean) > half:
            verdict = "helps" if mean < 0 else "hurts"
        self.decisions[name] = Decision(verdict, mean, mean - half, mean + half, level, len(values))


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[np.isfinite(values)]
