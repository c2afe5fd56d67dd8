"""What was fitted to predictions, out of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from poise.ensemble._conformal_intervals import ConformalIntervals
from poise.ensemble._conformal_sets import ConformalSets
from poise.ensemble._isotonic import Isotonic
from poise.ensemble._plain_data import PlainData, from_plain
from poise.ensemble._temperature import Temperature

KINDS: Mapping[str, type[PlainData]] = {
    one.__name__: one for one in (Temperature, Isotonic, ConformalIntervals, ConformalSets)
}


def fitted_from_dict(plain: Any) -> PlainData:
    """The `Temperature`, `Isotonic`, `ConformalIntervals` or `ConformalSets` whose `to_dict` gave `plain`.

    Args:
        plain: JSON data with a `kind`.

    Raises:
        ConfigError: If it is none of these, lacks a field or has one too many, or a value is out of range.

    Example:
        >>> from poise.ensemble import Temperature, fitted_from_dict
        >>> fitted_from_dict(Temperature(1.5).to_dict())
        Temperature(value=1.5)
    """
    fitted: PlainData = from_plain(plain, KINDS)
    return fitted
