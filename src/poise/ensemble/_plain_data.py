"""Fitted numbers as JSON and back: a file names kinds of a closed list, never code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Self

from poise._checks import check_type
from poise._errors import ConfigError


class PlainData:
    """Base of frozen dataclasses that consist of numbers, words and tuples of them."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON data; `from_dict` gives it back, equal."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, plain: Any) -> Self:
        """What `to_dict` was called on.

        Args:
            plain: The JSON data.

        Raises:
            ConfigError: If it is of another kind, lacks a field or has one too many, or a value is out of range.
        """
        fitted: Self = from_plain(plain, {cls.__name__: cls})
        return fitted


def to_plain(fitted: Any) -> dict[str, Any]:
    """The fields of a frozen dataclass with its `kind`; tuples become lists, and infinity, which JSON lacks, None."""
    return {"kind": type(fitted).__name__, **{one.name: _plain(getattr(fitted, one.name)) for one in fields(fitted)}}


def from_plain(plain: Any, kinds: Mapping[str, type]) -> Any:
    """What `to_plain` was given.

    Raises:
        ConfigError: If `plain` is of no kind of `kinds`, lacks a field or has one too many, or a value is out of range.
    """
    check_type("plain", plain, dict)
    kind = plain.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigError(f"There is no kind {kind!r} here.", repair=f"Kinds: {', '.join(kinds)}.")
    names = {one.name for one in fields(kinds[kind])}
    if names != plain.keys() - {"kind"}:
        found = sorted(str(one) for one in plain.keys() - {"kind"})
        raise ConfigError(f"A {kind} has the fields {', '.join(sorted(names))}, but got {', '.join(found)}.")
    return kinds[kind](**{name: _fitted(plain[name]) for name in names})


def check_numbers(name: str, values: Any) -> None:
    """Raise ConfigError unless `values` is a tuple of finite numbers."""
    check_type(name, values, tuple)
    for one in values:
        if isinstance(one, bool) or not isinstance(one, int | float) or not math.isfinite(one):
            raise ConfigError(f"`{name}` must hold finite numbers, but has {one!r}.")


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return None if value == math.inf else value


def _fitted(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_fitted(one) for one in value)
    return math.inf if value is None else value
