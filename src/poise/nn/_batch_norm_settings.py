"""Which settings a batch normalization may have."""

from __future__ import annotations

from collections.abc import Mapping

from poise._checks import Interval, check_integer, check_real, check_type
from poise._errors import ConfigError

_POSITIVE = Interval(0, low_open=True)
_MOMENTUM = Interval(0, 1)


def check_settings(
    num_features: int, eps: float, momentum: float | None, ghost_size: int, *, accumulate: int, num_domains: int,
    renorm: tuple[float, float] | None, flags: Mapping[str, bool],
) -> None:  # fmt: skip
    """Raise ConfigError unless each setting is in range and goes with the others."""
    check_integer("num_features", num_features, Interval(1))
    check_real("eps", eps, _POSITIVE)
    if momentum is not None:
        check_real("momentum", momentum, _MOMENTUM)
    for name, number in (("ghost_size", ghost_size), ("accumulate", accumulate), ("num_domains", num_domains)):
        check_integer(name, number, Interval(0))
    for name, flag in flags.items():
        check_type(name, flag, bool)
    check_renorm(renorm)
    if flags["debias"] and momentum == 0:
        raise ConfigError("`debias` needs momentum > 0, but got momentum=0.", repair="None averages all batches.")
    others = {"accumulate": accumulate != 1, "num_domains": num_domains > 0, "renorm": renorm is not None}
    for name, is_set in {**others, "synchronized": flags["synchronized"]}.items():
        if ghost_size and is_set:
            raise ConfigError(f"`ghost_size` does not go with `{name}`.", repair="Leave one of them out.")


def check_renorm(renorm: tuple[float, float] | None) -> None:
    """Raise ConfigError unless it is (r_max, d_max) or None."""
    if renorm is None:
        return
    check_type("renorm", renorm, tuple)
    if len(renorm) != 2:
        raise ConfigError(f"`renorm` must be (r_max, d_max), but got renorm={renorm!r}.")
    check_real("renorm[0]", renorm[0], Interval(1))
    check_real("renorm[1]", renorm[1], Interval(0))
