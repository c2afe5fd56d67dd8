"""Plain data and back: a closed list of kinds, and nothing that does not belong."""

import json

import numpy as np
import pytest

from poise import ConfigError, ConformalIntervals, ConformalSets, Isotonic, Temperature
from poise.ensemble import fitted_from_dict

ALL = [
    Temperature(1.5),
    Isotonic(((0.0, 1.0), (0.25, 0.5, 1.0)), ((0.0, 1.0), (0.0, 0.5, 1.0)), 12.0),
    ConformalIntervals(0.5, 0.9, 40, True),
    ConformalSets(float("inf"), 0.9, 4, 3, "aps", 2**64 - 1),
]


@pytest.mark.parametrize("fitted", ALL, ids=lambda one: type(one).__name__)
def test_json_there_and_back_is_equal(fitted):
    text = json.dumps(fitted.to_dict(), allow_nan=False)
    again = fitted_from_dict(json.loads(text))
    assert again == fitted
    assert type(again) is type(fitted)
    assert eval(repr(again).replace("inf", "float('inf')")) == fitted


@pytest.mark.parametrize("fitted", ALL, ids=lambda one: type(one).__name__)
def test_what_does_not_belong_is_refused(fitted):
    plain = fitted.to_dict()
    first = next(name for name in plain if name != "kind")
    lacking = {name: value for name, value in plain.items() if name != first}
    for wrong in (lacking, {**plain, "more": 1}, {**plain, first: "text"}, {**plain, first: -1}, {**plain, first: []}):
        with pytest.raises(ConfigError):
            fitted_from_dict(wrong)
    for wrong in (None, [], "text", {}, {**plain, "kind": "Key"}, {**plain, "kind": ["Temperature"]}):
        with pytest.raises(ConfigError):
            fitted_from_dict(wrong)


def test_a_kind_reads_only_its_own():
    with pytest.raises(ConfigError, match=r"There is no kind 'Temperature' here\. Kinds: Isotonic\."):
        Isotonic.from_dict(Temperature(2.0).to_dict())


def test_numbers_of_numpy_do_not_slip_in():
    p = np.array([[0.7, 0.3]] * 20, np.float32)
    for fitted in (Temperature.fit(p, [0] * 20), Isotonic.fit(p, np.zeros(20)), ConformalSets.fit(p, [0] * 20),
                   ConformalIntervals.fit(p[:, 0], p[:, 1])):  # fmt: skip
        json.dumps(fitted.to_dict())
