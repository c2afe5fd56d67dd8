"""The known recipes: findable, sourced, sound."""

import pytest

from poise._errors import ConfigError
from poise.methods import EarlyStopping, LabelSmoothing
from poise.recipe import KNOWN, SOURCES, Recipe, known


def test_each_has_a_source():
    assert list(KNOWN) == list(SOURCES)
    assert all(SOURCES.values())


@pytest.mark.parametrize("name", KNOWN)
def test_found_by_name(name):
    assert known(name) is KNOWN[name]
    assert isinstance(known(name), Recipe)
    assert known(name).get(LabelSmoothing) is None


def test_all_share_a_budget_so_that_they_compare():
    assert len({recipe.budget for recipe in KNOWN.values()}) == 1
    assert known("bare").methods == ()
    assert all(recipe.get(EarlyStopping) for name, recipe in KNOWN.items() if name != "bare")
    assert len(set(KNOWN.values())) == len(KNOWN)


def test_the_tables_cannot_be_changed():
    for table in (KNOWN, SOURCES):
        with pytest.raises(TypeError):
            table["bare"] = None


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("dropout-2015", "Did you mean 'dropout-2014'?"),
        ("coctail", "Did you mean 'cocktail'?"),
        ("zzz", "Known are bare, "),
    ],
)
def test_unknown_names_get_a_hint(name, hint):
    with pytest.raises(ConfigError, match="no known recipe") as caught:
        known(name)
    assert hint in str(caught.value)
