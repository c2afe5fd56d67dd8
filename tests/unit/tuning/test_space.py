"""Spaces of recipes: conditional, checked, and there and back through Optuna's parameters."""

import optuna
import pytest

from poise import ConfigError, Float, Int, OneOf, Space, known
from poise.functional.schedule import CosLog, FlatCosine
from poise.methods import BatchNorm, Dropout, EarlyStopping, GaussianNoise, LayerNorm
from poise.recipe import AdamW, Recipe, check_recipe
from poise.tuning import PORTFOLIO, TABLE_SPACE, from_optuna

SPACE = Space(
    Recipe(methods=(EarlyStopping(),), optimizer=AdamW(lr=CosLog(1e-3))),
    {
        "norm": OneOf(None, BatchNorm(), LayerNorm()),
        "dropout": OneOf(None, Dropout(p=0.2), Dropout(p=FlatCosine(0.2))),
        "Dropout.p": Float(0.0, 0.6),
        "optimizer.lr": Float(1e-4, 1e-2, log=True),
        "network.depth": Int(1, 4),
    },
)


def asked(space, number, seed=0):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for _ in range(number):
        trial = study.ask()
        yield space.suggest(trial), trial.params
        study.tell(trial, 0.0)


@pytest.mark.parametrize("space", [SPACE, TABLE_SPACE])
def test_parameters_and_recipe_say_the_same(space):
    seen = set()
    for recipe, params in asked(space, 60):
        assert space.params(recipe) == params
        assert space.recipe(params) == recipe
        seen.add(recipe)
    assert len(seen) == 60


def test_a_range_counts_only_where_its_method_is_there():
    for recipe, params in asked(SPACE, 30):
        assert ("Dropout.p" in params) == (recipe.get(Dropout) is not None)


def test_the_range_of_a_schedule_is_that_of_its_start():
    shapes = set()
    for recipe, params in asked(SPACE, 30):
        assert recipe.optimizer.lr == CosLog(params["optimizer.lr"])
        dropout = recipe.get(Dropout)
        if dropout is not None:
            shapes.add(type(dropout.p))
            assert params["Dropout.p"] in (dropout.p, getattr(dropout.p, "start", None))
    assert shapes == {float, FlatCosine}


def test_what_is_outside_is_refused():
    with pytest.raises(ConfigError, match="outside"):
        SPACE.params(Recipe(methods=(EarlyStopping(),), optimizer=AdamW(lr=CosLog(0.5))))
    with pytest.raises(ConfigError, match="does not vary"):
        SPACE.params(Recipe(methods=(EarlyStopping(patience=3),), optimizer=AdamW(lr=CosLog(1e-3))))
    with pytest.raises(ConfigError, match=r"'network\.depth' is missing"):
        SPACE.recipe({"norm": None, "dropout": None, "optimizer.lr": 1e-3})
    with pytest.raises(ConfigError, match="names none of"):
        SPACE.recipe({"norm": "GroupNorm()", "dropout": None, "optimizer.lr": 1e-3, "network.depth": 1})


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"Dropuot.p": Float(0, 1)}, "Did you mean 'Dropout'"),
        ({"network.widht": OneOf(1, 2)}, "Did you mean 'width'"),
        ({"norm": OneOf(1, 2)}, "several methods"),
        ({"norm": Float(0, 1)}, "several methods"),
        ({"network.width": 64}, "Domain"),
    ],
)
def test_names_and_ranges_that_make_no_sense_are_refused(ranges, message):
    with pytest.raises(ConfigError, match=message):
        Space(Recipe(), ranges)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Float(1, 0),
        lambda: Float(0, 1, log=True),
        lambda: Float(0, float("nan")),
        lambda: Int(1, 2.5),
        lambda: OneOf(1),
        lambda: OneOf(1, 1),
        lambda: OneOf([1], [2]),
    ],
)
def test_domains_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError):
        wrong()


def test_one_and_true_are_two_options():
    domain = OneOf(1, True, "1")
    assert [domain.value(domain.label(option)) for option in domain.options] == [1, True, "1"]
    assert domain.value(True) is True


def test_the_portfolio_is_in_the_space_and_keeps_every_rule():
    for name, recipe in PORTFOLIO.items():
        assert TABLE_SPACE.recipe(TABLE_SPACE.params(recipe)) == recipe, name
        assert TABLE_SPACE.is_valid(recipe), name
    with pytest.raises(ConfigError):
        TABLE_SPACE.params(known("bare"))


def test_a_rule_excludes_what_it_speaks_against():
    space = Space(Recipe(), {"noise": OneOf(None, GaussianNoise())})
    assert space.is_valid(Recipe(methods=(GaussianNoise(),)))
    both = Recipe(methods=(BatchNorm(), LayerNorm()))
    assert check_recipe(both)
    assert not space.is_valid(both)


def test_a_study_of_optuna_becomes_a_portfolio_the_best_first():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    study.optimize(lambda trial: SPACE.suggest(trial).network.depth, n_trials=12)
    found = list(from_optuna(study, SPACE).values())
    assert len(found) == 12
    assert [one.network.depth for one in found] == sorted(one.network.depth for one in found)
