"""A recipe of which some settings may vary."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from poise._checks import check_type
from poise._errors import ConfigError
from poise.functional.schedule import Schedule
from poise.methods import METHODS, Method
from poise.recipe import Recipe, check_recipe
from poise.tuning._domains import Domain, OneOf

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial

_PARTS = ("optimizer", "budget", "network")


@dataclass(frozen=True)
class Space:
    """A recipe with ranges.

    A name without a dot is a *slot*: one of several methods, or None, is added to the base's methods there. A name with
    a dot is a *field*: "optimizer.lr", "network.width", "budget.batch_size", or one of a method, "Dropout.p". The range
    of a field counts only where the recipe has the method, so choices are conditional. Where the base holds a schedule,
    the range is that of its start.

    Args:
        base: What does not vary.
        ranges: By name; slots are filled in this order.

    Raises:
        ConfigError: If a name is of nothing, or a slot offers anything but methods.

    Example:
        >>> from poise import Float
        >>> from poise.methods import BatchNorm, Dropout, LayerNorm
        >>> space = Space(Recipe(), {
        ...     "norm": OneOf(None, BatchNorm(), LayerNorm()),
        ...     "dropout": OneOf(None, Dropout()),
        ...     "Dropout.p": Float(0.0, 0.6),
        ... })
        >>> recipe = space.recipe({"norm": None, "dropout": space.ranges["dropout"].label(Dropout()), "Dropout.p": 0.3})
        >>> recipe.methods
        (Dropout(p=0.3, input_p=0.0, where='auto'),)
    """

    base: Recipe
    ranges: Mapping[str, Domain] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_type("base", self.base, Recipe)
        check_type("ranges", self.ranges, Mapping)
        for name, domain in self.ranges.items():
            check_type(f"ranges[{name!r}]", domain, Domain)
            self._check_slot(name, domain) if "." not in name else self._check_field(name)

    def _check_slot(self, name: str, domain: Domain) -> None:
        options = domain.options if isinstance(domain, OneOf) else ()
        if not options or not all(option is None or isinstance(option, Method) for option in options):
            raise ConfigError(
                f"The slot {name!r} must be one of several methods, or None, but got {domain!r}.",
                where="`ranges`",
                repair='Write OneOf(None, Dropout(), ...), or name a field, as in "Dropout.p".',
            )

    def _check_field(self, path: str) -> None:
        owner, name = path.split(".", 1)
        kind = METHODS[owner] if owner in METHODS else type(getattr(self.base, owner)) if owner in _PARTS else None
        known = [] if kind is None else [one.name for one in fields(kind)]
        if name in known:
            return
        near = difflib.get_close_matches(name if known else owner, known or [*_PARTS, *METHODS], n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known are {', '.join(known or [*_PARTS, *METHODS])}."
        raise ConfigError(f"There is no setting {path!r}.", where="`ranges`", repair=hint)

    def suggest(self, trial: BaseTrial) -> Recipe:
        """The recipe whose settings an Optuna trial suggests."""
        return self._build(lambda name, domain: domain.suggest(trial, name))

    def recipe(self, params: Mapping[str, Any]) -> Recipe:
        """The recipe of an Optuna trial's parameters.

        Raises:
            ConfigError: If one is missing or outside its range.
        """

        def choose(name: str, domain: Domain) -> Any:
            if name not in params:
                raise ConfigError(f"The parameter {name!r} is missing.", where="`params`")
            return domain.value(params[name])

        return self._build(choose)

    def params(self, recipe: Recipe) -> dict[str, Any]:
        """The parameters that `recipe` has in this space.

        Raises:
            ConfigError: If it is not in the space.
        """
        found: dict[str, Any] = {}
        for name, domain in self.ranges.items():
            if "." not in name:
                found[name] = domain.label(_occupant(recipe, domain))
        for path, domain in self.ranges.items():
            owner, _, name = path.partition(".")
            holder = _holder(recipe, owner) if name else None
            if holder is not None:
                value = getattr(holder, name)
                found[path] = domain.label(value.start if isinstance(value, Schedule) else value)
        if self.recipe(found) != recipe:
            raise ConfigError("The recipe differs from every one of the space in a setting that does not vary.")
        return found

    def distributions(self) -> dict[str, BaseDistribution]:
        """All ranges, as Optuna names them."""
        return {name: domain.distribution() for name, domain in self.ranges.items()}

    def is_valid(self, recipe: Recipe) -> bool:
        """Whether no rule of `check_recipe` speaks against the recipe that does not speak against the base."""
        accepted = {issue.id for issue in check_recipe(self.base)}
        return all(issue.id in accepted for issue in check_recipe(recipe))

    def _build(self, choose: Callable[[str, Domain], Any]) -> Recipe:
        slots = [choose(name, domain) for name, domain in self.ranges.items() if "." not in name]
        recipe = replace(self.base, methods=(*self.base.methods, *(one for one in slots if one is not None)))
        for path, domain in self.ranges.items():
            owner, _, name = path.partition(".")
            if name and _holder(recipe, owner) is not None:
                recipe = _with(recipe, owner, name, choose(path, domain))
        return recipe


def _holder(recipe: Recipe, owner: str) -> Any:
    """The part or method that is called `owner`, or None."""
    return getattr(recipe, owner) if owner in _PARTS else recipe.get(METHODS[owner])


def _occupant(recipe: Recipe, slot: Domain) -> Method | None:
    """What `recipe` has in a slot: the option that differs from its method in numbers only, or None."""
    options: tuple[Method | None, ...] = slot.options if isinstance(slot, OneOf) else ()
    for option in options:
        held = None if option is None else recipe.get(type(option))
        if option is not None and held is not None and _shape(held) == _shape(option):
            return option
    return None


def _shape(method: Method) -> Any:
    """All of a method but its numbers."""
    values = [getattr(method, one.name) for one in fields(method)]
    return type(method), [type(one) if isinstance(one, int | float | Schedule) else one for one in values]


def _with(recipe: Recipe, owner: str, name: str, value: Any) -> Recipe:
    holder = _holder(recipe, owner)
    old = getattr(holder, name)
    changed = replace(holder, **{name: replace(old, start=value) if isinstance(old, Schedule) else value})
    if owner in _PARTS:
        return replace(recipe, **{owner: changed})
    return replace(recipe, methods=tuple(changed if one is holder else one for one in recipe.methods))
