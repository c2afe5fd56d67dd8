"""Every public class and function of the packages that users meet shows how it is called."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest

import poise

from ._source import ROOT

FACES = ("poise.methods", "poise.nn", "poise.recipe")
NAMES = [(face, name) for face in FACES for name in importlib.import_module(face).__all__]
# Records that Poise fills in and hands over; nobody makes one.
HANDED_OVER = {"Batch", "Forward"}


@pytest.mark.parametrize(("face", "name"), NAMES)
def test_what_users_call_has_an_example(face, name):
    value = getattr(importlib.import_module(face), name)
    is_base = inspect.isclass(value) and (inspect.isabstract(value) or name == "Method")
    if (inspect.isclass(value) or inspect.isfunction(value)) and not is_base and name not in HANDED_OVER:
        assert ">>>" in (value.__doc__ or "")


@pytest.mark.parametrize(("face", "name"), NAMES)
def test_every_public_member_has_a_docstring(face, name):
    value = getattr(importlib.import_module(face), name)
    members = vars(value) if inspect.isclass(value) and value.__module__.startswith("poise") else {}
    for attribute, member in members.items():
        if not attribute.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
            assert inspect.getdoc(getattr(value, attribute)), attribute


def test_the_version_is_that_of_the_distribution():
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert declared is not None
    assert poise.__version__ == declared[1]
