"""Every rule fires on a recipe that breaks it, and on no recipe that is known to be good."""

import warnings

import pytest

from poise._errors import ConfigError, PoiseWarning
from poise.methods import (
    EMA,
    L1,
    L2,
    SWA,
    AlphaDropout,
    BatchNorm,
    Dropout,
    DropPath,
    EarlyStopping,
    GroupLasso,
    LabelSmoothing,
    LayerNorm,
    MaxNorm,
    Mixup,
    WeightDecay,
)
from poise.recipe import (
    KNOWN,
    AdamW,
    Budget,
    Constant,
    Cosine,
    Linear,
    Network,
    Recipe,
    check_recipe,
    validate_recipe,
)
from poise.recipe._rules import _RULES

SELU, RESIDUAL = Network(activation="selu"), Network(residual=True)
SHORT = Budget(max_epochs=10)


def methods(*found, **others):
    return Recipe(methods=found, **others)


# Rule, a recipe that breaks it and no other rule, and the nearest recipe that breaks none.
TABLE = [
    ("B02", methods(BatchNorm(), LayerNorm()), methods(LayerNorm())),
    ("B05", methods(BatchNorm(), budget=Budget(batch_size=15)), methods(BatchNorm(), budget=Budget(batch_size=16))),
    ("B05-ghost", methods(BatchNorm(ghost_size=15)), methods(BatchNorm(ghost_size=16))),
    (
        "B05-whole",
        methods(BatchNorm(ghost_size=64), budget=Budget(batch_size=64)),
        methods(BatchNorm(ghost_size=63), budget=Budget(batch_size=64)),
    ),
    ("B09", methods(BatchNorm(momentum=0.9)), methods(BatchNorm(momentum=0.5))),
    ("B38", methods(BatchNorm(), MaxNorm()), methods(LayerNorm(), MaxNorm())),
    ("D06", methods(Dropout(p=0.8)), methods(Dropout(p=0.79))),
    ("D06", methods(Dropout(p=Linear(0.1, end=0.9))), methods(Dropout(p=Linear(0.1, end=0.7)))),
    ("D06", methods(AlphaDropout(p=0.8), network=SELU), methods(AlphaDropout(p=0.79), network=SELU)),
    ("D06", methods(DropPath(p=0.8), network=RESIDUAL), methods(DropPath(p=0.79), network=RESIDUAL)),
    ("D07", methods(BatchNorm(), Dropout(where="all")), methods(BatchNorm(), Dropout())),
    ("D07", methods(BatchNorm(), Dropout(input_p=Linear(0.0, end=0.1))), methods(LayerNorm(), Dropout(input_p=0.1))),
    ("D07-alpha", methods(BatchNorm(), AlphaDropout(), network=SELU), methods(AlphaDropout(), network=SELU)),
    ("D11", methods(Dropout(), network=SELU), methods(network=SELU)),
    ("D11-alpha", methods(AlphaDropout()), methods(AlphaDropout(), network=SELU)),
    ("D16", methods(Dropout(input_p=0.21)), methods(Dropout(input_p=0.2))),
    ("D24", methods(DropPath()), methods(DropPath(), network=RESIDUAL)),
    ("W02", methods(WeightDecay(roles=("kernel", "bias"))), methods(WeightDecay())),
    ("W02", methods(WeightDecay(roles=("embedding",))), methods(WeightDecay(roles=()))),
    ("W05", methods(L2(), WeightDecay()), methods(L2(), L1())),
    ("W06", methods(L1(), GroupLasso()), methods(GroupLasso())),
    ("W13", methods(EMA(), SWA(), optimizer=AdamW(lr=0.1)), methods(EMA())),
    ("W13-lr", methods(SWA()), methods(SWA(), optimizer=AdamW(lr=Cosine(1.0, end=0.01)))),
    ("E08", methods(EarlyStopping(patience=10), budget=SHORT), methods(EarlyStopping(patience=9), budget=SHORT)),
    ("E09", methods(LabelSmoothing(), Mixup()), methods(Mixup())),
]
BREAKS_TWO = {"D11-both": methods(Dropout(p=0.1), AlphaDropout(), network=SELU)}
SEVERITY = {rule.issue.id: rule.issue.severity for rule in _RULES}


@pytest.mark.parametrize(("rule", "bad", "good"), TABLE, ids=[rule for rule, *_ in TABLE])
def test_a_rule_fires_on_what_breaks_it_and_on_nothing_near(rule, bad, good):
    assert [issue.id for issue in check_recipe(bad)] == [rule]
    assert check_recipe(good) == ()


def test_dropout_of_both_kinds_breaks_two_rules_errors_first():
    assert [issue.id for issue in check_recipe(BREAKS_TWO["D11-both"])] == ["D11-both", "D11"]
    severities = [issue.severity for issue in check_recipe(BREAKS_TWO["D11-both"])]
    assert severities == ["error", "warning"]


def test_the_table_is_complete_and_ids_are_unique():
    assert {rule for rule, *_ in TABLE} | set(BREAKS_TWO) == set(SEVERITY)
    assert len(SEVERITY) == len(_RULES)


@pytest.mark.parametrize("recipe", [Recipe(), *KNOWN.values()])
def test_no_rule_fires_on_known_recipes(recipe):
    assert check_recipe(recipe) == ()
    validate_recipe(recipe)


@pytest.mark.parametrize("rule", _RULES, ids=[rule.issue.id for rule in _RULES])
def test_every_issue_has_a_reason_and_a_repair(rule):
    for text in (rule.issue.reason, rule.issue.repair):
        assert text.endswith(".")
        assert text[0].isupper()
    assert str(rule.issue) == f"{rule.issue.id}: {rule.issue.reason} {rule.issue.repair}"


@pytest.mark.parametrize(("rule", "bad"), [(rule, bad) for rule, bad, _ in TABLE])
def test_validation_refuses_errors_and_warns_of_the_rest(rule, bad):
    if SEVERITY[rule] == "error":
        with pytest.raises(ConfigError, match=f"^{rule}: .*\\(in recipe\\)"):
            validate_recipe(bad)
    else:
        with pytest.warns(PoiseWarning, match=f"^{rule}: "):
            validate_recipe(bad)


def test_validation_refuses_before_it_warns():
    with warnings.catch_warnings(record=True) as caught, pytest.raises(ConfigError):
        warnings.simplefilter("always")
        validate_recipe(BREAKS_TWO["D11-both"])
    assert caught == []


def test_a_constant_learning_rate_suits_swa():
    assert check_recipe(methods(SWA(), optimizer=AdamW(lr=Constant(1e-3)))) == ()
