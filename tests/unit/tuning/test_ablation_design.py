"""Ingredients, arms and contrasts."""

from dataclasses import replace

import pytest

from poise import Budget, ConfigError, Network, Recipe, known
from poise.methods import AlphaDropout, BatchNorm, Dropout, EarlyStopping, WeightDecay
from poise.recipe import KNOWN
from poise.tuning._ablation_design import DESIGNS, ingredients, keep, make_design

PLAIN = known("bare").optimizer
SMALL = Recipe((Dropout(p=0.2), WeightDecay(), EarlyStopping()), PLAIN, Budget(7, 32), Network(width=8, depth=1))


@pytest.mark.parametrize("name", KNOWN)
def test_all_ingredients_make_the_recipe_and_none_the_bare_one_of_its_shape(name):
    recipe, bare = known(name), known("bare")
    assert keep(recipe, ingredients(recipe)) == recipe
    network = recipe.network
    shape = {one: getattr(network, one) for one in ("width", "depth", "activation", "residual", "embedding_dim")}
    expected = replace(bare, network=replace(bare.network, **shape), budget=recipe.budget)
    assert keep(recipe, ()) == expected


def test_settings_of_optimizer_and_network_are_ingredients_where_they_differ():
    recipe = known("realmlp-like")
    settings = [name for name in ingredients(recipe) if "." in name]
    assert settings[:3] == ["optimizer.lr", "optimizer.beta2", "optimizer.bias_lr"]
    assert {"network.numeric", "network.num_bins"} <= set(settings)
    assert not {"network.width", "network.depth", "network.activation"} & set(settings)
    without = keep(recipe, set(ingredients(recipe)) - {"optimizer.beta2"})
    assert without == replace(recipe, optimizer=replace(recipe.optimizer, beta2=PLAIN.beta2))


def test_leave_one_out():
    design = make_design(SMALL, "leave-one-out")
    assert list(design.arms) == ["all", "none", "without Dropout", "without WeightDecay", "without EarlyStopping"]
    assert design.arms["without Dropout"].methods == (WeightDecay(), EarlyStopping())
    assert [(one.name, dict(one.weights)) for one in design.contrasts][:2] == [
        ("whole recipe", {"all": 1, "none": -1}),
        ("Dropout", {"all": 1, "without Dropout": -1}),
    ]


def test_add_one_in():
    design = make_design(SMALL, "add-one-in")
    assert list(design.arms) == ["all", "none", "only Dropout", "only WeightDecay", "only EarlyStopping"]
    assert design.arms["only Dropout"].methods == (Dropout(p=0.2),)
    assert dict(design.contrasts[1].weights) == {"only Dropout": 1, "none": -1}


def test_pairs_are_blocks_of_four():
    design = make_design(SMALL, "pairs")
    assert [one.name for one in design.of_kind("pair")] == [
        "Dropout × WeightDecay",
        "Dropout × EarlyStopping",
        "WeightDecay × EarlyStopping",
    ]
    assert design.of_kind("pair")[0].weights == {
        "all": 1,
        "without Dropout": -1,
        "without WeightDecay": -1,
        "without Dropout and WeightDecay": 1,
    }
    assert design.arms["without Dropout and WeightDecay"].methods == (EarlyStopping(),)


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("name", ["cocktail", "realmlp-like"])
def test_weights_sum_to_zero_over_arms_that_exist_and_differ(design, name):
    made = make_design(known(name), design)
    assert len({repr(recipe) for recipe in made.arms.values()}) == len(made.arms)
    for one in made.contrasts:
        assert sum(one.weights.values()) == 0
        assert set(one.weights) <= set(made.arms)


def test_equal_arms_are_trained_once():
    design = make_design(replace(SMALL, methods=(Dropout(p=0.2),)), "leave-one-out")
    assert list(design.arms) == ["all", "none"]
    assert dict(design.contrasts[1].weights) == {"all": 1, "none": -1}


def test_an_arm_that_no_rule_allows_is_skipped_by_name(monkeypatch):
    from poise.recipe import Issue
    from poise.tuning import _ablation_design

    wrong = Issue("X", "error", "Decay needs dropout.", "")
    monkeypatch.setattr(
        _ablation_design,
        "check_recipe",
        lambda recipe: (wrong,) if recipe.get(WeightDecay) and not recipe.get(Dropout) else (),
    )
    design = make_design(SMALL, "leave-one-out")
    assert design.skipped == ("Dropout is not compared: Decay needs dropout.",)
    assert "without Dropout" not in design.arms
    assert [one.name for one in design.of_kind("ingredient")] == ["WeightDecay", "EarlyStopping"]


def test_the_shape_of_a_selu_network_stays():
    recipe = Recipe((AlphaDropout(p=0.1), WeightDecay()), PLAIN, Budget(3), Network(8, 1, "selu"))
    assert make_design(recipe, "add-one-in").skipped == ()


@pytest.mark.parametrize("recipe", [known("bare"), Recipe(optimizer=PLAIN, network=Network(width=9))])
def test_a_recipe_without_ingredients_is_refused(recipe):
    with pytest.raises(ConfigError, match="no ingredient"):
        make_design(recipe, "leave-one-out")


def test_methods_keep_their_order():
    recipe = replace(SMALL, methods=(BatchNorm(), Dropout(p=0.1), WeightDecay()))
    assert keep(recipe, ("WeightDecay", "BatchNorm")).methods == (BatchNorm(), WeightDecay())
