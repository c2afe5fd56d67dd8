import re
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from poise import write_page
from poise._text import visible
from poise.estimators import ColumnNote, FitResult
from poise.estimators._result import MemberNote, SearchNote

from ._results import make_hostile_result, make_result

pytestmark = pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
SVG = "{http://www.w3.org/2000/svg}"
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Tags, attributes and text of a page outside its pictures; refuses tags that do not nest."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.links, self.words, self.open = Counter(), set(), [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("href", "xlink:href", "src", "action")]
        if tag not in VOID:
            self.open.append(tag)
        if "svg" not in self.open:
            self.tags[tag] += 1
            self.attributes |= {(tag, name) for name, _ in attrs}

    def handle_startendtag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("href", "xlink:href", "src", "action")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def written(result: FitResult, folder) -> str:
    path = folder / "report.html"
    write_page(result, path)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return written(make_result(), tmp_path_factory.mktemp("plain"))


def test_the_page_says_what_the_result_says(plain):
    result, text = make_result(), Page(plain).text
    for part in (
        result.verdict,
        *result.warnings,
        "churn.csv",
        "1,200 training, 300 validation and 375 test rows, 12 s",
        "cocktail (chosen)",
        "48 different values",
        "stopped by the time limit",
        "python 3.11.7",
        'kind = "EMA"',
    ):
        assert part in text
    for one in result.candidates:
        for number in (one.train_score, one.test_score.value, one.test_score.low, one.test_score.high, one.train_loss):
            assert f"{number:.4f}" in text
        for number in (one.test_loss.value, one.test_loss.low, one.test_loss.high):
            assert f"{number:.4f}" in text
        assert f"{one.gap:+.4f}" in text


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (
            (0.75, 0.25),
            (
                "ensemble 0.4100, best single recipe 0.4200",
                "the ensemble has 0.4000, which flatters it.",
                "75 %",
                "trial 1, TPE",
            ),
        ),
        ((1.0,), ("no part in the choice: 0.4100. One recipe predicts", "100 %", "trial 0, TPE")),
    ],
)
def test_the_page_says_what_a_search_found(weights, words, tmp_path):
    members = tuple(MemberNote(i, "TPE", weight, 5, 0.44, "width = 8") for i, weight in enumerate(weights))
    search = SearchNote(
        num_trials=32, num_complete=7, num_failed=1, num_folds=5, max_epochs=64, epochs=1234, loss=0.41,
        naive_loss=0.4, single_loss=0.42, seconds=20.4, members=members,
    )  # fmt: skip
    text = Page(written(replace(make_result(), search=search), tmp_path)).text
    for part in (
        "One of two classes",
        "32 recipes, of which 7 trained to the end of 64 epochs and 1 did not stay finite",
        "1,234 epochs in all, on 5 folds, in 20 s",
        *words,
    ):
        assert part in text, text


def test_the_page_has_a_picture_for_every_network_and_one_for_all(plain):
    assert plain.count("<svg") == 3


def test_the_page_runs_nothing_and_loads_nothing(plain):
    page = Page(plain)
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in plain
    assert not page.tags.keys() & {"script", "iframe", "object", "embed", "link", "img", "form", "base"}
    assert not [name for _, name in page.attributes if name.startswith("on")]
    assert all(link.startswith("#") for link in page.links)
    assert not re.search(r"url\((?!#)", plain)
    assert "@import" not in plain


@pytest.fixture(scope="module")
def harmless(tmp_path_factory):
    return Page(written(make_hostile_result("name"), tmp_path_factory.mktemp("harmless")))


def test_a_hostile_name_can_be_read_and_is_nothing_but_text(hostile, harmless, tmp_path):
    text = written(make_hostile_result(hostile), tmp_path)
    page = Page(text)
    assert page.tags == harmless.tags
    assert page.attributes == harmless.attributes
    assert page.text.count(" ".join(visible(hostile).split())) >= 5
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u200b\u202e\ud800-\udfff]", text)
    for picture in re.findall("<svg.*?</svg>", text, re.DOTALL):
        tags = {element.tag.removeprefix(SVG) for element in ET.fromstring(picture).iter()}
        assert not tags & {"script", "text", "image", "a", "foreignObject"}


def test_the_same_result_gives_the_same_page(plain, tmp_path):
    assert written(make_result(), tmp_path) == plain


def test_an_older_page_is_replaced_and_nothing_else_is_left(tmp_path):
    (tmp_path / "report.html").write_text("older")
    assert "older" not in written(make_hostile_result("name"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_of_very_many_columns_the_first_are_listed_and_the_others_counted(tmp_path):
    columns = tuple(ColumnNote(f"name{index}", "number", "2 different values") for index in range(2500))
    write_page(replace(make_result(), columns=columns), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("2 different values") == 1000
    assert "name999" in page
    assert "And 1,500 more, which result.json lists." in page
