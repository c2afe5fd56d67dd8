import json

import pytest

from poise import ConfigError
from poise.tuning import AblationResult

from ._ablations import make_result, make_run


def test_a_result_goes_to_json_and_back():
    result = make_result()
    assert AblationResult.from_dict(json.loads(json.dumps(result.to_dict(), allow_nan=False))) == result


def test_effects_are_found_by_name():
    assert make_result().effect("EMA").verdict == "no effect"
    with pytest.raises(ConfigError, match=r"no effect 'ema'.*There are whole recipe, Dropout"):
        make_result().effect("ema")


def test_the_gap_is_test_minus_training_loss():
    assert make_run("all", 0, 0.5).gap == pytest.approx(0.4)
    assert make_run("all", 0, None).gap is None


def test_a_target_that_is_not_reached_counts_with_all_that_was_planned():
    never = make_run("all", 0, 0.5)
    assert (never.restricted_steps, never.restricted_seconds) == (80, 2.0)
    reached = make_run("all", 0, 0.5, reached_epoch=3, reached_seconds=0.25)
    assert (reached.restricted_steps, reached.restricted_seconds) == (12, 0.25)
