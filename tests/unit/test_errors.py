"""Errors: form of the message, builtin bases, and passage through processes."""

import copy
import inspect
import pickle

import pytest

from poise import _errors
from poise._errors import PoiseError, PoiseWarning

BUILTINS = {
    "ConfigError": ValueError,
    "DataError": ValueError,
    "ReadError": ValueError,
    "ColumnsError": ValueError,
    "BundleError": ValueError,
    "TrainingError": RuntimeError,
    "ResumeError": RuntimeError,
    "SurgeryError": RuntimeError,
    "ExportError": RuntimeError,
}
KINDS = [kind for _, kind in inspect.getmembers(_errors, inspect.isclass) if issubclass(kind, PoiseError)]


def test_every_error_is_also_the_builtin_a_caller_would_catch():
    assert {kind.__name__ for kind in KINDS} == {"PoiseError", *BUILTINS}
    for kind in KINDS:
        assert issubclass(kind, BUILTINS.get(kind.__name__, Exception))
    assert issubclass(PoiseWarning, UserWarning)
    assert not issubclass(PoiseWarning, PoiseError)


def test_the_docstring_shows_the_tree():
    for kind in [*KINDS, PoiseWarning]:
        assert f"{kind.__name__} " in _errors.__doc__ or f"{kind.__name__}\n" in _errors.__doc__
        for base in kind.__bases__:
            assert base is Exception or f"({base.__name__})" in _errors.__doc__ or issubclass(base, PoiseError)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "What."),
        ({"where": "row 3"}, "What. (in row 3)"),
        ({"repair": "Do."}, "What. Do."),
        ({"where": "row 3", "repair": "Do."}, "What. (in row 3) Do."),
    ],
)
def test_message_says_what_where_and_repair(settings, text):
    assert str(PoiseError("What.", **settings)) == text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("settings", [{}, {"where": "column 'age'", "repair": "Drop it."}])
def test_copies_keep_kind_and_fields(kind, settings):
    error = kind("What.", **settings)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is kind
        assert (again.what, again.where, again.repair) == (error.what, error.where, error.repair)
        assert str(again) == str(error)
        assert again.args == error.args


def test_fields_of_the_message_are_by_name_only():
    with pytest.raises(TypeError):
        PoiseError("What.", "where")
