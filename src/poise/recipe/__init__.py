"""Recipes as data: what is done to a network so that it generalizes."""

from poise.functional.schedule import (
    Constant,
    Cosine,
    CosineCycles,
    CosLog,
    EarlyOnly,
    FlatCosine,
    LateOnly,
    Linear,
    Schedule,
)
from poise.recipe._known import KNOWN, SOURCES, known
from poise.recipe._recipe import AdamW, Budget, Network, Recipe
from poise.recipe._rules import Issue, check_recipe, validate_recipe
from poise.recipe._toml import from_toml, to_toml

__all__ = [
    "KNOWN",
    "SOURCES",
    "AdamW",
    "Budget",
    "Constant",
    "CosLog",
    "Cosine",
    "CosineCycles",
    "EarlyOnly",
    "FlatCosine",
    "Issue",
    "LateOnly",
    "Linear",
    "Network",
    "Recipe",
    "Schedule",
    "check_recipe",
    "from_toml",
    "known",
    "to_toml",
    "validate_recipe",
]
