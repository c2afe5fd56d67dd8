"""Recipes as TOML and back; every fault of a file is a ConfigError that says where."""

import random
import sys
import tomllib
from dataclasses import fields

import pytest

from poise._errors import ConfigError
from poise.functional.schedule import Schedule
from poise.methods import METHODS, BatchNorm, Dropout, WeightDecay
from poise.recipe import (
    KNOWN,
    AdamW,
    Budget,
    Cosine,
    CosineCycles,
    CosLog,
    EarlyOnly,
    FlatCosine,
    LateOnly,
    Linear,
    Network,
    Recipe,
    from_toml,
    known,
    to_toml,
)
from poise.recipe._toml import SCHEDULES

RECIPES = [
    Recipe(),
    Recipe(methods=tuple(method() for method in METHODS.values())),
    Recipe(
        methods=(Dropout(p=Linear(0.1, end=0.30000000000000004), input_p=EarlyOnly(1e-3)), WeightDecay(roles=())),
        optimizer=AdamW(lr=Cosine(1 / 3, warmup=0.1), beta1=0, eps=1e-30, bias_lr=0.1),
        budget=Budget(max_epochs=1, batch_size=10**9),
        network=Network(
            width=1, depth=50, activation="selu", residual=True, numeric="quantile", num_bins=3, num_members=2
        ),
    ),
    *(
        Recipe(optimizer=AdamW(lr=schedule))
        for schedule in (CosLog(0.1), CosineCycles(0.1, cycles=3), FlatCosine(0.1), LateOnly(0.1), 0.5)
    ),
    *KNOWN.values(),
]


@pytest.mark.parametrize("recipe", RECIPES)
def test_there_and_back(recipe):
    text = to_toml(recipe)
    assert from_toml(text) == recipe
    assert to_toml(from_toml(text)) == text
    assert repr(from_toml(text)) == repr(recipe)


def test_an_empty_file_is_the_default_recipe_and_left_out_settings_have_defaults():
    assert from_toml("") == Recipe()
    found = from_toml('[network]\nwidth = 7\n[[methods]]\nkind = "BatchNorm"\n[optimizer]\nlr = 0.1\n')
    expected = Recipe(methods=(BatchNorm(),), optimizer=AdamW(lr=0.1), network=Network(width=7))
    assert found == expected


def test_every_schedule_and_method_has_its_kind():
    assert set(SCHEDULES.values()) == set(Schedule.__subclasses__())
    plain = tomllib.loads(to_toml(RECIPES[1]))
    assert [method["kind"] for method in plain["methods"]] == list(METHODS)


DROPOUT = '[[methods]]\nkind = "Dropout"\n'
FAULTS = [
    ("x = ", "not TOML", "mine"),
    ("width = 3", "no setting 'width'", "mine"),
    ("[netwrok]", "Did you mean 'network'", "mine"),
    ("[network]\nwidht = 3", "Did you mean 'width'", "mine: network"),
    ("network = 3", "A table is expected", "mine: network"),
    ("methods = 3", "array of tables", "mine"),
    ("methods = [3]", "A table with a `kind`", r"mine: methods\[0\]"),
    ("[[methods]]\np = 0.5", "A table with a `kind`", r"mine: methods\[0\]"),
    ("[[methods]]\nkind = 3", "A table with a `kind`", r"mine: methods\[0\]"),
    ('[[methods]]\nkind = "Dropuot"', "Did you mean 'Dropout'", r"mine: methods\[0\]"),
    ('[[methods]]\nkind = "os.system"', "no kind 'os.system'", r"mine: methods\[0\]"),
    ('[[methods]]\nkind = "Method"', "no kind 'Method'", r"mine: methods\[0\]"),
    ('[[methods]]\nkind = "__class__"', "no kind '__class__'", r"mine: methods\[0\]"),
    (DROPOUT + "p = 1.3", r"`p` must be a number in \[0, 1\), but got p=1.3", r"mine: methods\[0\]"),
    (DROPOUT + 'p = "0.3"', "`p` must be a number", r"mine: methods\[0\]"),
    (DROPOUT + "p = [0.3]", "`p` must be a number", r"mine: methods\[0\]"),
    (DROPOUT + "p = nan", "`p` must be a number", r"mine: methods\[0\]"),
    (DROPOUT + "p = 2020-01-01", "`p` must be a number", r"mine: methods\[0\]"),
    (DROPOUT + f"p = 1{'0' * 400}", "`p` must be a number", r"mine: methods\[0\]"),
    (DROPOUT + f"p = 1{'0' * 5000}", "not TOML", "mine"),
    (DROPOUT + "q = 0.3", "no setting 'q'", r"mine: methods\[0\]"),
    (DROPOUT + 'where = ["auto", "all"]', "`where` must be one of", r"mine: methods\[0\]"),
    (DROPOUT + "p = {start = 0.1}", "A table with a `kind`", r"mine: methods\[0\].p"),
    (DROPOUT + 'p = {kind = "Linaer", start = 0.1}', "Did you mean 'Linear'", r"mine: methods\[0\].p"),
    (DROPOUT + 'p = {kind = "Dropout", p = 0.1}', "no kind 'Dropout'", r"mine: methods\[0\].p"),
    (DROPOUT + 'p = {kind = "Linear"}', "`start` is missing", r"mine: methods\[0\].p"),
    (DROPOUT + 'p = {kind = "Linear", start = 0.1, end = "x"}', "`p` must be a number", r"mine: methods\[0\]"),
    (DROPOUT + 'p = {kind = "Linear", start = 0.1, end = 1.5}', "`p` must be a number", r"mine: methods\[0\]"),
    (DROPOUT + 'p = {kind = "Constant", start = {kind = "Constant", start = 0.1}}', "`p` must be", r"methods\[0\]"),
    (DROPOUT + 'p = {kind = "FlatCosine", start = 0.1, flat = 1}', "`flat` must be", r"mine: methods\[0\].p"),
    (DROPOUT * 2, "Dropout appears twice", "mine: methods"),
    ('[[methods]]\nkind = "WeightDecay"\nroles = "kernel"', "`roles` must be tuple", r"mine: methods\[0\]"),
    ('[[methods]]\nkind = "WeightDecay"\nroles = ["kernels"]', "`roles` must be one of", r"mine: methods\[0\]"),
    ('[budget]\nmax_epochs = {kind = "Constant", start = 3}', "`max_epochs` must be an integer", "mine: budget"),
    ('[network]\nactivation = ["relu"]', "`activation` must be one of", "mine: network"),
    ("[network]\nresidual = 1", "`residual` must be bool", "mine: network"),
    ("[optimizer]\nlr = -1", "`lr` must be a number", "mine: optimizer"),
    ("x = " + "[" * 5000, "not TOML", "mine"),
]


@pytest.mark.parametrize(("text", "what", "where"), FAULTS, ids=[text[:60] for text, *_ in FAULTS])
def test_faults_say_what_and_where(text, what, where):
    with pytest.raises(ConfigError, match=what) as caught:
        from_toml(text, source="mine")
    assert caught.match(where)


def test_the_first_recipe_reads_as_in_the_docs():
    text = to_toml(known("dropout-2014"))
    assert "[[methods]]" in text or "methods = [" in text
    assert 'kind = "Dropout"' in text


STRENGTHS = {name: [one.name for one in fields(kind) if one.metadata["strength"]] for name, kind in METHODS.items()}


@pytest.mark.parametrize("name", [name for name, strengths in STRENGTHS.items() if strengths])
@pytest.mark.parametrize("kind", SCHEDULES.values())
def test_every_strength_takes_every_schedule_there_and_back(name, kind):
    if name in ("MaxNorm", "GradientClip") and 0.0 in kind(0.25).values:
        with pytest.raises(ConfigError, match="`max_norm` must be"):
            METHODS[name](max_norm=kind(0.25))
        return
    recipe = Recipe(methods=(METHODS[name](**dict.fromkeys(STRENGTHS[name], kind(0.25))),))
    assert from_toml(to_toml(recipe)) == recipe


WORDS = ("Dropout", "kind", "[[methods]]", "[", "]", "{", "}", "=", '"', "'", "0", "-1", "1e999", "nan", "true", "\n")
HARMFUL = {"import", "exec", "compile", "open", "os.system", "subprocess.Popen", "socket.connect"}


class Watch:
    """An audit hook. It cannot be taken away again, hence the switch."""

    def __init__(self):
        self.is_on, self.seen = True, []
        sys.addaudithook(self)

    def __call__(self, event, _):
        if self.is_on and event in HARMFUL:
            self.seen.append(event)


def damaged(text, rng):
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(text))
        new = rng.choice(("", rng.choice(WORDS), chr(rng.randrange(0x250))))
        text = text[:start] + new + text[start + rng.choice((0, 0, 1, 3, 12)) :]
    return text


def test_a_thousand_damaged_files_give_a_recipe_or_a_config_error_and_run_nothing():
    rng = random.Random(0)
    texts = [damaged(to_toml(rng.choice(list(KNOWN.values()))), rng) for _ in range(1000)]
    num_refused = 0
    watch = Watch()
    try:
        for text in texts:
            try:
                assert isinstance(from_toml(text), Recipe)
            except ConfigError:
                num_refused += 1
    finally:
        watch.is_on = False
    assert watch.seen == []
    assert 300 < num_refused < 1000
