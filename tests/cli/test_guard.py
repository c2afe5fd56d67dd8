import json
import warnings

import pytest
import typer

from poise import (
    BundleError,
    ColumnsError,
    ConfigError,
    DataError,
    PoiseError,
    PoiseWarning,
    ReadError,
    ResumeError,
    TrainingError,
)
from poise._text import visible
from poise.cli._guard import guarded


def failing(error):
    def command():
        raise error

    return command


def run_guarded(command, **options):
    with pytest.raises(typer.Exit) as end:
        guarded(command, **{"as_json": False, **options})
    return end.value.exit_code


CODES = [
    (ConfigError, 2),
    (ResumeError, 2),
    (DataError, 3),
    (ReadError, 3),
    (ColumnsError, 3),
    (BundleError, 4),
    (TrainingError, 1),
    (PoiseError, 1),
]


@pytest.mark.parametrize(("kind", "code"), CODES)
def test_an_error_becomes_a_message_and_an_exit_code(kind, code, capsys):
    assert run_guarded(failing(kind("It broke.", where="column 'a'", repair="Mend it."))) == code
    captured = capsys.readouterr()
    assert captured.err == "error: It broke.\n  where: column 'a'\n  repair: Mend it.\n"
    assert captured.out == ""


def test_parts_that_are_not_known_are_left_out(capsys):
    run_guarded(failing(DataError("It broke.")))
    assert capsys.readouterr().err == "error: It broke.\n"


@pytest.mark.parametrize(("kind", "code"), CODES)
def test_for_machines_it_is_an_object_as_well(kind, code, capsys):
    run_guarded(failing(kind("It broke.", where="here", repair="Mend it.")), as_json=True)
    captured = capsys.readouterr()
    expected = {"kind": kind.__name__, "exit_code": code, "what": "It broke.", "where": "here", "repair": "Mend it."}
    assert json.loads(captured.out) == {"error": expected}
    assert captured.err.startswith("error: It broke.")


def test_a_hostile_name_in_a_message_is_text_on_one_line(hostile, capsys):
    run_guarded(failing(DataError(f"Column {hostile} is empty.", where=hostile)), as_json=True)
    captured = capsys.readouterr()
    shown = visible(hostile, max_length=400)
    assert captured.err.splitlines() == [f"error: Column {shown} is empty.", f"  where: {shown}"]
    assert json.loads(captured.out)["error"]["where"] == shown


def test_an_interruption_tells_how_to_continue(capsys):
    command = "poise fit 'a b.csv' --target y --out run --resume"
    assert run_guarded(failing(KeyboardInterrupt()), resume=command) == 130
    assert capsys.readouterr().err == f"error: Interrupted.\n  repair: Continue with: {command}\n"


def test_what_the_system_refuses_is_told_with_the_file(capsys):
    assert run_guarded(failing(PermissionError(13, "Permission denied", "run/config.toml"))) == 1
    assert capsys.readouterr().err.startswith("error: Permission denied.\n  where: run/config.toml\n  repair: ")


def test_a_mistake_of_ours_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        guarded(failing(ZeroDivisionError()), as_json=False)


def test_our_warnings_are_notes_and_those_of_others_are_silent(capsys):
    def command():
        warnings.warn("Column '\x1b[31m' is odd.", PoiseWarning, stacklevel=1)
        warnings.warn("Something of a library.", DeprecationWarning, stacklevel=1)

    guarded(command, as_json=False)
    captured = capsys.readouterr()
    assert captured.err == "note: Column '\\x1b[31m' is odd.\n"
    assert captured.out == ""
