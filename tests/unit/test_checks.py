"""Argument checks: what they let pass, and the grammar of what they say."""

import math

import numpy as np
import pytest

from poise._checks import Interval, check_choice, check_integer, check_real, check_type
from poise._errors import ConfigError

HALF_OPEN = Interval(0, 1, high_open=True)


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        (Interval(0, 1), (0, 0.5, 1, True), (-1e-300, 1 + 1e-15)),
        (HALF_OPEN, (0.0, 1 - 1e-16), (1, 1.0)),
        (Interval(0, 1, low_open=True), (1e-300, 1), (0, -0.0)),
        (Interval(-2), (-2, 0, 1e308, 10**300), (-2.1, math.inf, 10**400)),
        (Interval(-math.inf), (-1e308, 5), (math.nan, math.inf, -math.inf, -(10**400))),
    ],
)
def test_interval_holds_its_numbers(interval, inside, outside):
    assert all(value in interval for value in inside)
    assert all(value not in interval for value in (*outside, math.nan))


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (Interval(0, 1), "[0, 1]"),
        (HALF_OPEN, "[0, 1)"),
        (Interval(0, low_open=True), "(0, inf)"),
        (Interval(1e-6, 0.5), "[1e-06, 0.5]"),
    ],
)
def test_interval_prints_as_mathematics(interval, text):
    assert str(interval) == text


@pytest.mark.parametrize("value", [0, 0.5, np.float64(0.25)])
def test_reals_in_range_pass(value):
    check_real("p", value, HALF_OPEN)


@pytest.mark.parametrize("value", [1, 1.3, -1, math.nan, math.inf, True, "0.5", None, [0.5], 1j, np.float32(0.5)])
def test_other_values_are_named_with_rule_and_value(value):
    with pytest.raises(ConfigError) as caught:
        check_real("p", value, HALF_OPEN)
    assert str(caught.value) == f"`p` must be a number in [0, 1), but got p={value!r}."


@pytest.mark.parametrize("value", [0, -3, 2.0, False, "2", None, 10**400])
def test_integers_are_integers_in_range(value):
    check_integer("depth", 3, Interval(1))
    with pytest.raises(ConfigError) as caught:
        check_integer("depth", value, Interval(1))
    assert str(caught.value) == f"`depth` must be an integer in [1, inf), but got depth={value!r}."


@pytest.mark.parametrize("value", ["Auto", None, ["auto"], {}])
def test_choices_are_listed(value):
    check_choice("where", "all", ("auto", "all"))
    with pytest.raises(ConfigError) as caught:
        check_choice("where", value, ("auto", "all"))
    assert str(caught.value) == f"`where` must be one of 'auto', 'all', but got where={value!r}."


def test_types_are_listed():
    check_type("x", 1, (int, str))
    check_type("x", "a", str)
    with pytest.raises(ConfigError, match=r"^`x` must be int or str, but got x=1\.5\.$"):
        check_type("x", 1.5, (int, str))
    with pytest.raises(ConfigError, match=r"^`x` must be tuple, but got x=\[1\]\.$"):
        check_type("x", [1], tuple)
