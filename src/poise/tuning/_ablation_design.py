"""What an ablation compares: ingredients of a recipe, arms that have some of them, and contrasts of arms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from itertools import combinations
from typing import Literal

from poise._errors import ConfigError
from poise.recipe import Recipe, check_recipe, known

DesignName = Literal["leave-one-out", "add-one-in", "pairs"]
DESIGNS: tuple[DesignName, ...] = ("leave-one-out", "add-one-in", "pairs")
Kind = Literal["ingredient", "pair", "recipe"]

# What the bare network has in common with the recipe: its shape.
_SHAPE = ("width", "depth", "activation", "residual", "embedding_dim")


def ingredients(recipe: Recipe) -> tuple[str, ...]:
    """The methods of `recipe`, and the settings of its optimizer and network in which it differs from the bare recipe.

    The shape of the network and the budget are not among them.

    Args:
        recipe: Any recipe.

    Example:
        >>> from poise.recipe import known
        >>> ingredients(known("batchnorm-2015"))[2:]
        ('EarlyStopping', 'optimizer.lr', 'network.numeric', 'network.num_bins')
    """
    bare = known("bare")
    settings = [
        f"{part}.{one.name}"
        for part in ("optimizer", "network")
        for one in fields(getattr(recipe, part))
        if one.name not in _SHAPE and getattr(getattr(recipe, part), one.name) != getattr(getattr(bare, part), one.name)
    ]
    return (*(type(method).__name__ for method in recipe.methods), *settings)


def keep(recipe: Recipe, kept: Iterable[str]) -> Recipe:
    """`recipe` with the ingredients `kept` only; other settings are those of the bare recipe."""
    bare, names = known("bare"), set(kept)
    methods = tuple(method for method in recipe.methods if type(method).__name__ in names)
    changes: dict[str, dict[str, object]] = {"optimizer": {}, "network": {}}
    for name in ingredients(recipe):
        part, _, setting = name.partition(".")
        if setting and name not in names:
            changes[part][setting] = getattr(getattr(bare, part), setting)
    parts = {part: replace(getattr(recipe, part), **settings) for part, settings in changes.items()}
    return replace(recipe, methods=methods, **parts)


@dataclass(frozen=True)
class Contrast:
    """An effect: a weighted sum of the losses of arms.

    Args:
        name: Of the ingredient, or of two.
        kind: "ingredient", "pair" (an interaction) or "recipe" (all against none).
        weights: By name of the arm; they sum to zero. The first arm has the ingredient, the second lacks it.
    """

    name: str
    kind: Kind
    weights: Mapping[str, int]


@dataclass(frozen=True)
class Design:
    """What is trained and what is compared.

    Args:
        arms: Recipes by name; "all" and "none" are always among them.
        contrasts: Effects.
        skipped: Ingredients that cannot be compared, each with the reason.
    """

    arms: Mapping[str, Recipe]
    contrasts: tuple[Contrast, ...]
    skipped: tuple[str, ...] = ()

    def of_kind(self, kind: Kind) -> tuple[Contrast, ...]:
        """The contrasts of a kind."""
        return tuple(one for one in self.contrasts if one.kind == kind)


def make_design(recipe: Recipe, design: DesignName) -> Design:
    """The arms and contrasts of a design.

    - "leave-one-out": all ingredients against all but one. Effect: loss(all) - loss(without it).
    - "add-one-in": one ingredient alone against none. Effect: loss(only it) - loss(none).
    - "pairs": leave-one-out, and for each two ingredients A and B the block of four that has both, either or none of
      them beside all others. Interaction: loss(all) - loss(without A) - loss(without B) + loss(without both).

    Args:
        recipe: With one ingredient or more.
        design: One of `DESIGNS`.

    Raises:
        ConfigError: If the recipe has no ingredient, or none that may be left out or added alone.

    Reference: Box, Hunter and Hunter, "Statistics for experimenters", 1978, chapter 10.
    """
    names = ingredients(recipe)
    if not names:
        raise ConfigError(
            "The recipe has no ingredient: it is the bare recipe.",
            where="`recipe`",
            repair="Give a recipe with at least one method.",
        )
    drawing = _Drawing(recipe, names)
    every, nothing = drawing.arm("all", names), drawing.arm("none", ())
    drawing.contrast("whole recipe", "recipe", {every: 1, nothing: -1})
    for name in names:
        if design == "add-one-in":
            drawing.contrast(name, "ingredient", {drawing.arm(f"only {name}", (name,)): 1, nothing: -1})
        else:
            drawing.contrast(name, "ingredient", {every: 1, drawing.without(name): -1})
    for one, other in combinations(names, 2) if design == "pairs" else ():
        both, first, second = drawing.without(one, other), drawing.without(one), drawing.without(other)
        drawing.contrast(f"{one} × {other}", "pair", {every: 1, first: -1, second: -1, both: 1})
    return drawing.finish()


class _Drawing:
    """A design that is being made."""

    def __init__(self, recipe: Recipe, names: tuple[str, ...]) -> None:
        self.recipe, self.names = recipe, names
        self.arms: dict[str, Recipe] = {}
        self.name_of: dict[tuple[str, ...], str] = {}
        self.wrong: dict[str, str] = {}
        self.contrasts: list[Contrast] = []
        self.skipped: list[str] = []

    def without(self, *left_out: str) -> str:
        kept = tuple(name for name in self.names if name not in left_out)
        return self.arm(f"without {' and '.join(left_out)}", kept)

    def arm(self, name: str, kept: tuple[str, ...]) -> str:
        """The name of the arm that keeps `kept`: `name`, unless it is there under another one."""
        if kept in self.name_of:
            return self.name_of[kept]
        self.name_of[kept] = name
        recipe = keep(self.recipe, kept)
        errors = [issue for issue in check_recipe(recipe) if issue.severity == "error"]
        if errors:
            self.wrong[name] = errors[0].reason
        else:
            self.arms[name] = recipe
        return name

    def contrast(self, name: str, kind: Kind, weights: Mapping[str, int]) -> None:
        reasons = [self.wrong[arm] for arm in weights if arm in self.wrong]
        if reasons:
            self.skipped.append(f"{name} is not compared: {reasons[0]}")
        else:
            self.contrasts.append(Contrast(name, kind, weights))

    def finish(self) -> Design:
        used = {arm for one in self.contrasts for arm in one.weights} | {"all", "none"}
        if not any(one.kind == "ingredient" for one in self.contrasts):
            raise ConfigError(
                f"No ingredient can be compared ({' '.join(self.skipped)}).",
                where="`recipe`",
                repair="Choose another design or recipe.",
            )
        arms = {name: recipe for name, recipe in self.arms.items() if name in used}
        return Design(arms, tuple(self.contrasts), tuple(self.skipped))
