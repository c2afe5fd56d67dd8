"""Searches of tables of very many columns keep their networks small, and say so."""

import numpy as np
import polars as pl
import pytest

from poise import PoiseClassifier, fit
from poise.data import Column, Schema
from poise.recipe import Network, Recipe, known
from poise.tuning import PORTFOLIO, TABLE_SPACE, OneOf, Space
from poise.tuning._wide import WidthLimits


def limits_for(num_numbers):
    return WidthLimits(num_numbers, num_numbers, num_numbers)


@pytest.mark.parametrize("num_columns", [1, 100, 2048])
def test_ordinary_tables_have_no_limits(num_columns):
    limits = limits_for(num_columns)
    assert limits.note == ""
    assert limits.space(TABLE_SPACE) == TABLE_SPACE
    assert limits.portfolio(PORTFOLIO) == PORTFOLIO
    large = Recipe(network=Network(width=1024, num_bins=512, num_frequencies=64))
    assert limits.recipe(large) == large


@pytest.mark.parametrize("num_columns", [3_000, 20_000, 200_000])
def test_first_layers_stay_small(num_columns):
    limits = limits_for(num_columns)
    space, portfolio = limits.space(TABLE_SPACE), limits.portfolio(PORTFOLIO)
    for recipe in (space.base, known("bare"), *portfolio.values(), Recipe(network=Network(width=999, num_bins=999))):
        network = limits.recipe(recipe).network
        parts = max(1, network.num_bins) + (network.periodic_dim if network.num_frequencies else 0)
        assert num_columns * parts * network.width < 2**26
    for name, recipe in portfolio.items():
        assert space.recipe(space.params(recipe)) == recipe, name
    assert len(set(map(repr, portfolio.values()))) == len(portfolio)


def test_what_is_limited_is_said():
    assert limits_for(3000).note == "For 3,000 columns networks were kept small: at most 16 bins of a number."
    assert limits_for(200_000).note == (
        "For 200,000 columns networks were kept small: no bins of a number, no waves of a number, at most 64 units of "
        "a layer."
    )


def test_a_space_of_ones_own_keeps_what_is_left():
    space = Space(Recipe(), {"network.width": OneOf(32, 512), "network.depth": OneOf(1, 2)})
    assert limits_for(100_000).space(space).ranges["network.width"] == OneOf(32, 128)
    narrow = Space(Recipe(), {"network.width": OneOf(128, 256), "network.depth": OneOf(1, 2)})
    left = limits_for(200_000).space(narrow)
    assert list(left.ranges) == ["network.depth"]
    assert left.base.network.width == 64


def test_the_kinds_of_columns_count():
    columns = [
        Column(f"{kind} {i}", kind) for kind in ("number", "date", "category", "boolean", "id") for i in range(2)
    ]
    assert WidthLimits.of(Schema(tuple(columns))) == WidthLimits(8, num_numbers=6, num_inputs=36)


def wide_table(num_columns):
    rng = np.random.default_rng(0)
    table = pl.DataFrame(rng.normal(size=(60, num_columns)), schema=[f"f{i}" for i in range(num_columns)])
    return table, np.where(table["f0"] > 0, "yes", "no")


def test_a_fit_of_a_wide_table_notes_its_limits():
    table, target = wide_table(3000)
    result = fit(table.with_columns(pl.Series("y", target)), target="y", time_limit=1.0, quality="fast")
    assert result.warnings[0] == limits_for(3000).note


@pytest.mark.slow
def test_very_wide_arrays_are_learnt():
    table, target = wide_table(30_000)
    model = PoiseClassifier(quality="fast", time_limit=1.0, random_state=0).fit(table.to_numpy(), target)
    assert {trial.recipe.network.num_bins for trial in model.search_.trials} == {0}
    probabilities = model.predict_proba(table.to_numpy())
    assert probabilities.shape == (60, 2)
    assert np.isfinite(probabilities).all()
