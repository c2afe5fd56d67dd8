"""The chart and the page of an ablation."""

import re
from dataclasses import replace
from functools import cache

import polars as pl
import pytest
from matplotlib.figure import Figure

from poise import Budget, Network, Recipe, ablate, write_ablation_page
from poise._text import visible
from poise.methods import EMA, Dropout
from poise.report import EffectChart

from .test_page import Page

pytestmark = pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
HOSTILE = "<script>alert(1)</script> $x_1^2$ \x1b[31m\u202e\ud800'\"&"


@cache
def measured():
    table = pl.DataFrame({"x": [i * i % 61 for i in range(60)], "churn": ["a", "b"] * 30})
    recipe = Recipe((Dropout(p=0.2), EMA()), budget=Budget(2, 16), network=Network(width=8, depth=1))
    return ablate(table, target="churn", recipe=recipe, design="pairs", max_blocks=2)


def make_result(**changes):
    """A measured result with verdicts of every kind."""
    verdicts = ("helps", "hurts", "no effect", "cannot tell")
    effects = [replace(one, verdict=verdicts[row % 4]) for row, one in enumerate(measured().effects)]
    return replace(measured(), **{"effects": tuple(effects), "margin": 0.0069, "warnings": ("Take care.",), **changes})


def written(result, folder):
    write_ablation_page(result, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def drawn(result):
    return EffectChart(result.effects, result.margin, result.loss_name).plot(Figure().add_subplot())


def test_the_chart_shows_each_effect_with_its_interval_and_verdict():
    result = make_result()
    ax = drawn(result)
    lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in ax.get_lines()]
    points = [tuple(float(number) for number in dots.get_offsets()[0]) for dots in ax.collections]
    for row, one in enumerate(result.effects):
        assert ([one.loss.low, one.loss.high], [row, row]) in lines
        assert (one.loss.value, row) in points
    assert [label.get_text() for label in ax.get_yticklabels()] == [one.name for one in result.effects]
    assert [text.get_text() for text in ax.texts] == [one.verdict for one in result.effects]
    assert ax.yaxis_inverted()


def test_the_chart_shows_zero_and_the_margin():
    ax = drawn(make_result())
    assert [0, 0] in [list(line.get_xdata()) for line in ax.get_lines()]
    band = ax.patches[0]
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx((-0.0069, 0.0069))


def test_an_effect_without_an_estimate_has_a_row_and_no_point():
    effects = make_result().effects[:2]
    ax = drawn(make_result(effects=(effects[0], replace(effects[1], loss=None))))
    assert len(ax.collections) == 1
    assert [label.get_text() for label in ax.get_yticklabels()] == [one.name for one in effects]


def test_the_page_says_what_the_result_says(tmp_path):
    result, text = make_result(), Page(written(make_result(), tmp_path)).text
    rows, python = f"{result.num_rows} different rows", f"python {result.environment['python']}"
    said = (result.verdict, "Take care.", rows, "design pairs", python)
    for part in said:
        assert part in text
    for one in result.effects:
        assert f"{one.name} {one.verdict}" in text
        assert f"{one.loss.value:+z.4f} {one.loss.low:+z.4f} to {one.loss.high:+z.4f}" in text
        if one.steps is not None:
            assert f"{one.steps.value:.2f} {one.steps.low:.2f} to {one.steps.high:.2f}" in text
    assert len(re.findall(r"\d / \d", text)) == len([one for one in result.effects if one.kind != "pair"])
    assert 'kind = "EMA"' in text


def test_the_page_loads_nothing_and_runs_nothing(tmp_path):
    page = Page(written(make_result(), tmp_path))
    assert page.tags["script"] == page.tags["link"] == page.tags["img"] == 0
    assert all(link.startswith("#") for link in page.links)


def test_names_from_outside_are_text(tmp_path):
    names = {"source": HOSTILE, "target": HOSTILE, "warnings": (HOSTILE,), "environment": {"python": HOSTILE}}
    page = Page(written(make_result(**names), tmp_path))
    assert page.tags["script"] == 0
    assert visible(HOSTILE) in page.text


def test_the_same_result_gives_the_same_page(tmp_path):
    assert written(make_result(), tmp_path) == written(make_result(), tmp_path)
    assert not re.search(r"20\d\d-\d\d-\d\d", written(make_result(), tmp_path))
