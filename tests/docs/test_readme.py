"""README and docs: their Python runs, their TOML is a recipe, their commands exist, their links lead somewhere."""

from __future__ import annotations

import doctest
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
import typer.main

from poise import from_toml
from poise.cli._app import app
from poise.methods import METHODS
from poise.recipe import KNOWN
from poise.recipe._rules import _RULES

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "examples" / "README.md", *(ROOT / "docs").glob("*.md")]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page, language):
    """(line, text) of the fenced blocks in one language."""
    text = page.read_text(encoding="utf-8")
    found = [one for one in FENCE.finditer(text) if one[2] == language]
    return [(text[: one.start()].count("\n") + 2, one[3]) for one in found]


def run_session(text, names, page, line):
    """A block with prompts: what it prints must be what stands there."""
    test = doctest.DocTestParser().get_doctest(text, names, page.name, str(page), line)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    report: list[str] = []
    runner.run(test, out=report.append, clear_globs=False)
    assert runner.failures == 0, "".join(report)
    names.update(test.globs)


@every_page
def test_python_runs(page, tmp_path, monkeypatch):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for line, text in blocks(page, "python"):
        if ">>>" in text:
            run_session(text, names, page, line)
        else:
            exec(compile("\n" * (line - 1) + text, str(page), "exec"), names)


@every_page
def test_toml_is_a_recipe(page):
    for line, text in blocks(page, "toml"):
        from_toml(text, source=f"{page.name}:{line}")


@every_page
def test_commands_exist(page):
    commands = typer.main.get_command(app).commands
    for line, text in [*blocks(page, ""), *blocks(page, "sh")]:
        for words in (shlex.split(one, comments=True) for one in text.splitlines() if one.startswith("poise ")):
            known = {option for parameter in commands[words[1]].params for option in parameter.opts}
            given = {word for word in words if re.fullmatch(r"--?[a-z].*", word)}
            assert given <= known | {"--help"}, f"line {line}: {words}"


@every_page
def test_links_lead_somewhere(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), target


def test_a_wrong_block_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("text\n\n```python\n>>> 1 + 1\n3\n```\n", encoding="utf-8")
    ((line, text),) = blocks(page, "python")
    assert line == 4
    with pytest.raises(AssertionError, match="Expected"):
        run_session(text, {}, page, line)


def test_the_page_of_methods_says_what_the_code_does():
    lines = (ROOT / "docs" / "methods.md").read_text("utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    by_name = {row[0].strip("`"): row for row in rows}
    assert list(by_name) == list(METHODS)
    for name, method in METHODS.items():
        _, place, _, strengths, structural, _ = by_name[name]
        assert place == method.place
        for one in fields(method):
            cell = strengths if one.metadata["strength"] else structural
            assert f"`{one.name}={one.default!r}`" in cell, (name, one.name)


def test_the_page_of_recipes_names_every_recipe_and_rule():
    text = (ROOT / "docs" / "recipes.md").read_text("utf-8")
    assert re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE) == list(KNOWN)
    listed = dict(re.findall(r"^\| ([A-Z]\d\d[\w-]*) \| .* \| (error|warning) \|$", text, re.MULTILINE))
    assert listed == {rule.issue.id: rule.issue.severity for rule in _RULES}
