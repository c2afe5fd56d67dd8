"""Recipes as TOML and back, through a closed registry: a file names kinds, never code."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from poise._errors import ConfigError
from poise.functional.schedule import (
    Constant,
    Cosine,
    CosineCycles,
    CosLog,
    EarlyOnly,
    FlatCosine,
    LateOnly,
    Linear,
    Schedule,
)
from poise.methods import METHODS
from poise.recipe._recipe import AdamW, Budget, Network, Recipe

T = TypeVar("T")

SCHEDULES: Mapping[str, type[Schedule]] = {
    schedule.__name__: schedule
    for schedule in (Constant, Linear, Cosine, FlatCosine, CosineCycles, CosLog, EarlyOnly, LateOnly)
}
_SECTIONS: Mapping[str, type] = {"optimizer": AdamW, "budget": Budget, "network": Network}


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML; `from_toml` reads it back as an equal recipe.

    Args:
        recipe: Any recipe.

    Example:
        >>> from poise import Recipe, from_toml, known, to_toml
        >>> from_toml(to_toml(known("cocktail"))) == known("cocktail")
        True
    """
    import tomli_w

    sections: dict[str, Any] = {name: _to_plain(getattr(recipe, name)) for name in _SECTIONS}
    methods = [{"kind": type(method).__name__, **_to_plain(method)} for method in recipe.methods]
    return tomli_w.dumps({**sections, "methods": methods})


def from_toml(text: str, *, source: str = "recipe") -> Recipe:
    r"""The recipe that `text` describes; what it leaves out has its default.

    Args:
        text: Tables `[optimizer]`, `[budget]`, `[network]` and `[[methods]]`, each method with its `kind`; a schedule
            is an inline table with its `kind`.
        source: What to call the text in errors.

    Raises:
        ConfigError: If the text is no TOML, or names a kind or key that does not exist, or a value is out of range.

    Example:
        >>> from poise import from_toml
        >>> from_toml('[[methods]]\nkind = "Dropout"\np = { kind = "Linear", start = 0.0, end = 0.5 }').methods
        (Dropout(p=Linear(start=0.0, end=0.5), input_p=0.0, where='auto'),)
    """
    try:
        plain = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also integers of thousands of digits, and endless nesting
        raise ConfigError(f"This is not TOML: {error}.", where=source) from error
    _check_keys(plain, {*_SECTIONS, "methods"}, source)
    sections = {name: _build(kind, plain.get(name, {}), f"{source}: {name}") for name, kind in _SECTIONS.items()}
    listed = plain.get("methods", [])
    if not isinstance(listed, list):
        raise ConfigError("`methods` must be an array of tables, [[methods]].", where=source)
    methods = tuple(_build_kind(METHODS, method, f"{source}: methods[{index}]") for index, method in enumerate(listed))
    return _placed(f"{source}: methods", lambda: Recipe(methods=methods, **sections))


def _to_plain(value: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for one in fields(value):
        item = getattr(value, one.name)
        if isinstance(item, Schedule):
            plain[one.name] = {"kind": type(item).__name__, **_to_plain(item)}
        elif item is not None:  # TOML has no word for it; what is left out has its default
            plain[one.name] = list(item) if isinstance(item, tuple) else item
    return plain


def _build_kind(registry: Mapping[str, type], plain: Any, place: str) -> Any:
    if not isinstance(plain, dict) or not isinstance(plain.get("kind"), str):
        raise ConfigError("A table with a `kind` is expected.", where=place, repair=f"Kinds: {', '.join(registry)}.")
    kind = plain["kind"]
    if kind not in registry:
        raise ConfigError(f"There is no kind {kind!r}.", where=place, repair=_nearest(kind, registry))
    return _build(registry[kind], {name: value for name, value in plain.items() if name != "kind"}, place)


def _build(kind: type, plain: Any, place: str) -> Any:
    if not isinstance(plain, dict):
        raise ConfigError("A table is expected.", where=place)
    declared = {one.name: one for one in fields(kind)}
    _check_keys(plain, declared, place)
    missing = [
        name
        for name, one in declared.items()
        if name not in plain and one.default is MISSING and one.default_factory is MISSING
    ]
    if missing:
        raise ConfigError(f"`{missing[0]}` is missing.", where=place)
    values = {name: _value(value, f"{place}.{name}") for name, value in plain.items()}
    return _placed(place, lambda: kind(**values))


def _value(value: Any, place: str) -> Any:
    if isinstance(value, dict):
        return _build_kind(SCHEDULES, value, place)
    return tuple(value) if isinstance(value, list) else value


def _placed(place: str, make: Callable[[], T]) -> T:
    try:
        return make()
    except ConfigError as error:
        raise ConfigError(error.what, where=error.where or place, repair=error.repair) from error


def _check_keys(plain: Mapping[str, Any], allowed: Collection[str], place: str) -> None:
    for name in plain:
        if name not in allowed:
            raise ConfigError(f"There is no setting {name!r} here.", where=place, repair=_nearest(name, allowed))


def _nearest(name: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(sorted(names))}."
