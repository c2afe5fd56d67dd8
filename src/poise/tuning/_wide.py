"""Recipes for tables of very many columns, whose networks are kept small enough to train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from poise.data import Schema
from poise.recipe import Recipe
from poise.tuning._domains import OneOf
from poise.tuning._space import Space

_MOST_PARTS = 1 << 16  # bins, or waves, of all numbers together
_MOST_WEIGHTS = 1 << 24  # of a first layer; a training takes some forty bytes for each
_INPUTS: Mapping[str, int] = MappingProxyType({"number": 1, "boolean": 1, "date": 8, "category": 8})  # at most, about
_NUMBERS: Mapping[str, int] = MappingProxyType({"number": 1, "date": 2})
_STEPS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {"num_bins": (32, 16, 8, 0), "num_frequencies": (16, 0), "width": (256, 128, 64)}
)
_WORDS: Mapping[str, str] = MappingProxyType(
    {"num_bins": "bins of a number", "num_frequencies": "waves of a number", "width": "units of a layer"}
)


@dataclass(frozen=True)
class WidthLimits:
    """What a search may use where columns are many. Tables of up to 2,048 numbers have no limits.

    All bins together, and all waves, are 65,536 at most, and the first layer has 16 million weights at most, if need be
    with 64 units. A memory that is smaller still is another matter: a fleet refuses what does not fit.

    Args:
        num_columns: Features of the table.
        num_numbers: Numbers that may be binned or made waves of.
        num_inputs: What a network reads without bins and waves, about.

    Example:
        >>> from poise import known
        >>> limits = WidthLimits(200_000, num_numbers=200_000, num_inputs=200_000)
        >>> limits.recipe(known("cocktail")).network.num_bins, limits.recipe(known("bare")).network.width
        (0, 64)
    """

    num_columns: int
    num_numbers: int
    num_inputs: int

    @classmethod
    def of(cls, schema: Schema) -> WidthLimits:
        """The limits for a table."""
        kinds = [column.kind for column in schema.features]
        numbers, inputs = (sum(each.get(kind, 0) for kind in kinds) for each in (_NUMBERS, _INPUTS))
        return cls(len(kinds), numbers, inputs)

    def recipe(self, recipe: Recipe) -> Recipe:
        """`recipe` with fewer bins or waves and a narrower network, where it has too many."""
        return _with(recipe, {name: self._lowered(name, getattr(recipe.network, name)) for name in _STEPS})

    def portfolio(self, recipes: Mapping[str, Recipe]) -> dict[str, Recipe]:
        """The `recipes` within the limits, without those that became equal."""
        found: dict[str, Recipe] = {}
        for name, recipe in recipes.items():
            limited = self.recipe(recipe)
            if limited == recipe or limited not in found.values():
                found[name] = limited
        return found

    def space(self, space: Space) -> Space:
        """`space` without the options that are too many."""
        base, ranges = self.recipe(space.base), dict(space.ranges)
        for name in _STEPS:
            domain = ranges.get(f"network.{name}")
            if not isinstance(domain, OneOf):
                continue
            left = list(dict.fromkeys(self._lowered(name, option) for option in domain.options))
            if len(left) > 1:
                ranges[f"network.{name}"] = OneOf(*left)
            else:
                del ranges[f"network.{name}"]
                base = _with(base, {name: left[0]})
        return Space(base, ranges)

    @property
    def note(self) -> str:
        """What is limited, for people; "" if nothing is."""
        most = {name: self._lowered(name, steps[0]) for name, steps in _STEPS.items()}
        limited = [name for name, steps in _STEPS.items() if most[name] < steps[0]]
        told = [f"at most {most[name]} {_WORDS[name]}" if most[name] else f"no {_WORDS[name]}" for name in limited]
        return f"For {self.num_columns:,} columns networks were kept small: {', '.join(told)}." if told else ""

    def _lowered(self, name: str, value: int) -> int:
        steps = _STEPS[name]
        if self._fits(name, steps[0]):
            return value  # nothing is limited, what is asked for beyond the steps neither
        return next((one for one in (value, *steps) if one <= value and self._fits(name, one)), min(value, steps[-1]))

    def _fits(self, name: str, value: int) -> bool:
        if name == "width":
            return self.num_inputs * value <= _MOST_WEIGHTS
        return self.num_numbers * value <= _MOST_PARTS


def _with(recipe: Recipe, changed: Mapping[str, Any]) -> Recipe:
    """`recipe` with changed fields of its network."""
    return replace(recipe, network=replace(recipe.network, **changed))
