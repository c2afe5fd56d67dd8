import json

import pytest

from poise.estimators import Check


def test_a_sound_machine_gets_versions_and_trials(poise):
    result = poise("doctor")
    assert result.exit_code == 0
    for word in ("python", "torch", "processor", "random numbers", "as published", "save and load", "bit for bit"):
        assert word in result.stdout


@pytest.fixture
def sick(monkeypatch):
    checks = (Check("python", "3.11"), Check("fit", "ArithmeticError: [/red] nothing is learnt", ok=False))
    monkeypatch.setattr("poise.self_test", lambda: checks, raising=False)


def test_a_trial_that_fails_fails_the_command(poise, sick):
    result = poise("doctor")
    assert result.exit_code == 1
    assert "[/red] nothing is learnt" in result.stdout


def test_json_holds_every_check(poise, sick):
    result = poise("doctor", "--json")
    assert result.exit_code == 1
    assert [check["ok"] for check in json.loads(result.stdout)["checks"]] == [True, False]
