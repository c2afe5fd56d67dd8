"""The source as syntax trees, and which module imports which."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "poise"


def module_name(path: Path) -> str:
    """`poise.methods._l1` for src/poise/methods/_l1.py, and `poise.methods` for its `__init__.py`."""
    parts = ("poise", *path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package, parsed."""
    return {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SOURCE.rglob("*.py"))}


def imports_of(tree: ast.Module) -> set[tuple[str, str]]:
    """(module, name) of every import of ours, also inside functions and for types only; "" names the module itself."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "", alias.name) for alias in node.names}
    return {(module, name) for module, name in found if module == "poise" or module.startswith("poise.")}


def targets_of(tree: ast.Module) -> set[str]:
    """The modules that a module imports from: `from poise import nn` is an import of `poise.nn`."""
    known = modules()
    return {f"{module}.{name}" if f"{module}.{name}" in known else module for module, name in imports_of(tree)}
