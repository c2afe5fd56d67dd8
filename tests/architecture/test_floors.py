"""Imports go down only: the floors of docs/design.md, siblings apart, no rings."""

from __future__ import annotations

import ast

import pytest

import poise

from ._source import imports_of, modules, targets_of

FLOORS = (
    {"_errors", "_text"},
    {"_checks"},
    {"kernels"},
    {"_random"},
    {"functional", "data"},
    {"nn"},
    {"methods"},
    {"recipe", "surgery"},
    {"train"},
    {"fleet"},
    {"ensemble"},
    {"tuning"},
    {"estimators"},
    {"report", "integrations"},
    {"cli"},
    {"", "__main__"},  # the package itself, whose names are lazy
)
FLOOR_OF = {folder: height for height, floor in enumerate(FLOORS) for folder in floor}
BELOW_THE_DOOR = [name for name in modules() if name.split(".")[1:2] not in (["cli"], ["__main__"]) and "." in name]


def folder_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def rings(edges: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one module, and modules that import themselves (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(edges.get(node, ())):
            if target not in index:
                visit(target)
            if target in stack:
                low[node] = min(low[node], low[target])
        if low[node] == index[node]:
            ring = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(ring) > 1 or node in edges.get(node, ()):
                found.append(ring)

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found


def test_every_folder_has_a_floor():
    assert {folder_of(name) for name in modules()} == set(FLOOR_OF)


@pytest.mark.parametrize("module", BELOW_THE_DOOR)
def test_imports_go_down(module):
    here = folder_of(module)
    for target in targets_of(modules()[module]):
        there = folder_of(target)
        assert there == here or FLOOR_OF[there] < FLOOR_OF[here], f"{module} imports {target}, which is not below it"


def test_no_rings():
    assert rings({name: targets_of(tree) for name, tree in modules().items()}) == []


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}, [["a", "b", "c"]]),
        ({"a": {"a"}}, [["a"]]),
    ],
)
def test_rings_are_found(edges, expected):
    assert rings(edges) == expected


def test_methods_do_not_import_each_other():
    for name, tree in modules().items():
        if name.startswith("poise.methods.") and name != "poise.methods._bases":
            siblings = {target for target in targets_of(tree) if target.startswith("poise.methods")}
            assert siblings <= {"poise.methods._bases"}, name


@pytest.mark.parametrize("module", [name for name in modules() if name.split(".")[1:2] == ["cli"]])
def test_the_command_line_uses_only_public_names(module):
    for source, name in imports_of(modules()[module]):
        is_its_own = source == "poise.cli" or source.startswith("poise.cli.")
        is_public = source == "poise" and name in poise.__all__
        assert is_its_own or is_public or source in ("poise._errors", "poise._text"), f"{module}: {source}.{name}"


def test_no_relative_imports():
    for name, tree in modules().items():
        relative = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
        assert not relative, name
