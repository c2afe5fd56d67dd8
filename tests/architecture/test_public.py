"""The public face: `__all__` is what is exported, every name is documented, and the pages name them all."""

from __future__ import annotations

import ast
import dataclasses
import inspect

import pytest

import poise
from poise.functional.schedule import Schedule
from poise.recipe import KNOWN, SOURCES

from ._source import ROOT, modules

PACKAGE = modules()["poise"]
# The tree is drawn in the docstring of `poise._errors`; one line each says the rest.
SHORT = {name for name in poise.__all__ if name.endswith(("Error", "Warning"))}
OBJECTS = sorted(set(poise.__all__) - SHORT - {"__version__", "methods", "nn"})
FOLDERS = [name for name in modules() if name.count(".") == 1 and "__all__" in dir(__import__(name, fromlist=["_"]))]


def page(name: str) -> str:
    """The text of a page of docs/."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def takes_arguments(thing: object) -> bool:
    """Whether a caller can give it anything."""
    return any(name not in ("self", "args", "kwargs") for name in inspect.signature(thing).parameters)


def imported_for_types() -> dict[str, set[str]]:
    """Home and names of each import in the TYPE_CHECKING block of the package."""
    block = next(node for node in PACKAGE.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    return {node.module: {alias.name for alias in node.names} for node in block.body}


def test_every_name_can_be_imported():
    assert all(hasattr(poise, name) for name in poise.__all__)
    assert dir(poise) == sorted(poise.__all__)


def test_no_other_name_can():
    with pytest.raises(AttributeError, match="module 'poise' has no attribute 'Trainer'"):
        _ = poise.Trainer


def test_types_homes_and_all_agree():
    for_types = imported_for_types()
    packages = for_types.pop("poise")
    assert {home: set(names) for home, names in poise._HOMES.items()} == for_types
    assert packages == set(poise._PACKAGES)
    listed = set().union(*for_types.values(), packages, {"__version__"})
    assert sorted(listed) == sorted(poise.__all__)
    assert len(set(poise.__all__)) == len(poise.__all__)


@pytest.mark.parametrize("name", FOLDERS)
def test_all_of_a_folder_is_what_it_imports(name):
    tree = modules()[name]
    imported = {alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom)
                for alias in node.names if node.module.startswith("poise.")}  # fmt: skip
    assigned = {node.target.id for node in tree.body if isinstance(node, ast.AnnAssign)}
    assert set(__import__(name, fromlist=["_"]).__all__) == imported | assigned


@pytest.mark.parametrize("name", OBJECTS)
def test_every_public_name_is_documented(name):
    thing = getattr(poise, name)
    text = inspect.getdoc(thing) or ""
    # A dataclass without a docstring gets its signature as one.
    assert text and not text.startswith(f"{name}("), f"{name} has no docstring"
    assert "Example:" in text and ">>>" in text, f"{name} has no example"
    if inspect.isclass(thing) and issubclass(thing, Schedule):
        return  # the formula in the first line names its settings
    if takes_arguments(thing):
        assert "Args:" in text, f"{name} says nothing of its arguments"
        missing = [one for one in inspect.signature(thing).parameters if f"{one}:" not in text]
        assert missing == [] or dataclasses.is_dataclass(thing), f"{name} leaves out {missing}"


@pytest.mark.parametrize("name", sorted(SHORT))
def test_every_error_says_what_it_is_for(name):
    assert len(getattr(poise, name).__doc__.split()) >= 4
    assert name in (modules()["poise._errors"].body[0].value.value)


@pytest.mark.parametrize("name", sorted(poise.methods.METHODS))
def test_every_method_is_documented(name):
    text = poise.methods.METHODS[name].__doc__
    for part in ("Args:", "Shape:", "Example:", ">>>", "Reference: "):
        assert part in text, f"{name} lacks {part}"
    assert "eval mode" in text or name == "EarlyStopping", f"{name} does not say what it does in eval mode"
    assert f"| `{name}` |" in page("methods.md")


def test_every_public_name_is_on_the_page_of_the_interface():
    text = page("api.md")
    absent = [name for name in {*poise.__all__, *poise.nn.__all__, *poise.methods.__all__} if f"`{name}`" not in text]
    assert sorted(absent) == []


def test_every_known_recipe_is_on_its_page_with_its_source():
    text = page("recipes.md")
    assert set(SOURCES) == set(KNOWN)
    assert [name for name in KNOWN if f"`{name}`" not in text] == []


def test_every_rule_is_on_the_page_of_recipes():
    rules = [node.args[0].value for node in ast.walk(modules()["poise.recipe._rules"])
             if isinstance(node, ast.Call) and ast.unparse(node.func) == "_rule"]  # fmt: skip
    assert len(rules) == len(set(rules)) > 0
    assert [rule for rule in rules if f"| {rule} |" not in page("recipes.md")] == []
