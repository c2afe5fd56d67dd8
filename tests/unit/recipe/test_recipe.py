"""Recipes as values, and the ranges of their settings."""

import pytest

from poise._errors import ConfigError
from poise.methods import BatchNorm, Dropout, EarlyStopping, LayerNorm, Method, NetworkMethod, StopMethod
from poise.nn import Structure
from poise.recipe import AdamW, Budget, Constant, Linear, Network, Recipe

FAULTS = [
    (AdamW, "lr", [-0.1, 101, "0.1", None, True, float("nan"), Linear(0.1, end=-1.0), Constant("x")]),
    (AdamW, "beta1", [1.0, -0.1]),
    (AdamW, "beta2", [1.0, Constant(0.9)]),
    (AdamW, "eps", [0.0, float("inf")]),
    (AdamW, "bias_lr", [-1, None]),
    (Budget, "max_epochs", [0, 1.5, True, "3"]),
    (Budget, "batch_size", [0, -1, 32.0]),
    (Network, "width", [0, 2.0]),
    (Network, "depth", [0, None]),
    (Network, "embedding_dim", [0]),
    (Network, "num_bins", [-1, 1.0]),
    (Network, "parametric", [1, "yes"]),
    (Network, "input_scale", [0, None]),
    (Network, "num_members", [0, 2.5]),
    (Network, "init", ["he", None, 1]),
    (Network, "num_frequencies", [-1, 2.0]),
    (Network, "frequency_scale", [-0.1, "1", float("nan")]),
    (Network, "periodic_dim", [0, 1.5]),
    (Network, "activation", ["ReLU", None]),
    (Network, "numeric", ["standard", 1]),
    (Network, "residual", [1, "true", None]),
    (Recipe, "methods", [[Dropout()], Dropout(), (Dropout,), ("Dropout",), None]),
    (Recipe, "optimizer", ["adamw", None, AdamW]),
    (Recipe, "budget", [60]),
    (Recipe, "network", [Structure()]),
]


@pytest.mark.parametrize(("kind", "name", "values"), FAULTS)
def test_settings_out_of_range_are_named(kind, name, values):
    for value in values:
        with pytest.raises(ConfigError, match=f"`{name}` must be"):
            kind(**{name: value})


def test_a_method_appears_once():
    with pytest.raises(ConfigError, match="Dropout appears twice"):
        Recipe(methods=(Dropout(p=0.1), BatchNorm(), Dropout(p=0.2)))


def test_methods_are_found_by_kind_and_place_in_order():
    recipe = Recipe(methods=(EarlyStopping(), Dropout(p=0.1), BatchNorm()))
    assert recipe.get(Dropout) == Dropout(p=0.1)
    assert recipe.get(LayerNorm) is None
    assert recipe.of(NetworkMethod) == (Dropout(p=0.1), BatchNorm())
    assert recipe.of(StopMethod) == (EarlyStopping(),)
    assert recipe.of(Method) == recipe.methods


def test_recipes_are_values():
    one, other = (Recipe(methods=(Dropout(p=0.1),), network=Network(width=3)) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert one != Recipe(methods=(Dropout(p=0.2),), network=Network(width=3))
    assert Recipe(methods=(Dropout(), BatchNorm())) != Recipe(methods=(BatchNorm(), Dropout()))


@pytest.mark.parametrize(
    ("num_rows", "batch_size", "epochs"),
    [(1, 128, 200), (0, 128, 200), (3200, 128, 80), (10**6, 128, 40), (1600, 64, 80)],
)
def test_a_budget_left_open_suits_the_table(num_rows, batch_size, epochs):
    assert Budget(batch_size=batch_size).epochs_for(num_rows) == epochs
    assert Budget(max_epochs=7, batch_size=batch_size).epochs_for(num_rows) == 7


def test_network_names_its_structure():
    network = Network(width=3, depth=2, activation="gelu", residual=True, num_bins=4)
    assert network.structure == Structure(width=3, depth=2, activation="gelu", residual=True)
