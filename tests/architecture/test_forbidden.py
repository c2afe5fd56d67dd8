"""What must not be in the source: code that runs what a file says, and signs of unfinished work."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest

from ._source import ROOT, SOURCE, modules

MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "yaml"}
CALLS = {"eval", "exec", "compile", "__import__", "breakpoint", "globals"}
ATTRIBUTES = {
    "torch.load", "torch.save", "torch.jit.load", "torch.manual_seed", "np.load", "numpy.load", "np.random.seed",
    "numpy.random.seed", "pl.Config.set_global", "torch.set_default_dtype", "torch.hub.load", "pd.read_pickle",
    "pandas.read_pickle", "os.system",
}  # fmt: skip
SHAPELESS_NAMES = {"utils", "helpers", "common", "misc"}
TEXTS = sorted(
    path
    for folder in ("src", "tests", "benchmarks", "docs", "examples", ".ci")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in ("", ".py", ".md", ".html", ".toml", ".txt")
    and path.is_file()
    and "__pycache__" not in path.parts
) + [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "pyproject.toml", "Makefile")]
TEXTS += [ROOT / name for name in ("constraints.txt", ".gitignore")]
MOST_LINES = 320
# Spelled in pieces, so that this file does not hold what it forbids.
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
ONE_MACHINE = re.compile(r"(?<![\w.])/(ho" r"me|ro" r"ot|wo" r"rk|Us" r"ers)/[\w.]|C:\\Us" r"ers")
REGISTRY = re.compile(
    r"[i]ndex-url|[I]NDEX_URL|[f]ind-links|[p]ypi\.|[p]ythonhosted|[a]rtifactory|://[^/\s]*/[s]imple\b"
)


def dotted(node: ast.expr) -> str:
    """`torch.jit.load` for that expression, "" for one that is no chain of names."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""


def offences(tree: ast.Module) -> list[str]:
    """What in a module is forbidden, with its line."""
    found = []
    for node in ast.walk(tree):
        names: set[str] = set()
        if isinstance(node, ast.Import):
            names = {alias.name.split(".")[0] for alias in node.names} & MODULES
        elif isinstance(node, ast.ImportFrom):
            names = {(node.module or "").split(".")[0]} & MODULES
            names |= {f"{node.module}.{alias.name}" for alias in node.names} & ATTRIBUTES
        elif isinstance(node, ast.Name):
            names = {node.id} & CALLS
        elif isinstance(node, ast.Attribute):
            names = {dotted(node)} & ATTRIBUTES
        elif isinstance(node, ast.Assert):
            names = {"assert"}
        elif isinstance(node, ast.keyword) and node.arg == "weights_only":
            names = {"weights_only"}
        found += [f"line {getattr(node, 'lineno', '?')}: {name}" for name in sorted(names)]
    return found


@pytest.mark.parametrize("module", modules())
def test_nothing_forbidden(module):
    assert offences(modules()[module]) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from joblib import load", "import yaml.loader", "torch.load('x')", "from torch import load",
        "eval('1')", "f = exec", "def f():\n    assert True", "np.load('x')", "torch.jit.load('x')",
    ],
)  # fmt: skip
def test_forbidden_code_is_found(code):
    assert len(offences(ast.parse(code))) == 1


def test_allowed_code_is_not():
    assert (
        offences(ast.parse("import json\njson.load(f)\nmodel.eval()\nsafetensors.torch.load(b)\nre.compile('x')")) == []
    )


def test_no_file_without_a_meaning():
    names = {path.stem.strip("_") for path in SOURCE.rglob("*")}
    assert not names & SHAPELESS_NAMES


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_unfinished_work_no_path_of_one_machine_and_no_registry(path):
    text = path.read_text(encoding="utf-8")
    for pattern in (UNFINISHED, ONE_MACHINE, REGISTRY):
        hit = pattern.search(text)
        assert hit is None, f"{hit.group()!r} in line {text[: hit.start()].count(chr(10)) + 1}"


@pytest.mark.parametrize(
    "pieces", [("--index", "-url x"), ("https://py", "pi.org/x"), ("https://a.b/sim", "ple/torch")]
)
def test_registries_are_found(pieces):
    assert REGISTRY.search("".join(pieces))


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_file_is_too_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_src_is_what_is_tested():
    code = "import poise, pathlib; print(pathlib.Path(poise.__file__).resolve().parent)"
    imported = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    assert imported == str(SOURCE.resolve())
