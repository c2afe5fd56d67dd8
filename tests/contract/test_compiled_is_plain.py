"""The compiled engine trains as the plain one does: float64 to 1e-9 over 100 steps, float32 as its roundings allow.

The sizes are uneven on purpose: 67 training rows in batches of 16 end with one of 3.
"""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from poise.methods import (
    EMA,
    L2,
    METHODS,
    SWA,
    BatchNorm,
    Dropout,
    DropPath,
    EarlyStopping,
    FeatureMask,
    GaussianNoise,
    GradientClip,
    GroupLasso,
    LabelSmoothing,
    LayerNorm,
    MaxNorm,
    Mixup,
    WeightDecay,
)
from poise.nn import ACTIVATIONS
from poise.recipe import AdamW, Budget, Cosine, CosLog, Linear, Network, check_recipe

from ._engines import (
    ADAM,
    COMPILED,
    DATA,
    EXACT,
    NETWORK,
    PLAIN,
    SGD,
    STREAM,
    TASKS,
    assert_same,
    distances,
    make_data,
    make_plan,
    recipe_of,
    train,
)
from ._families import ALL, FAMILIES


@pytest.mark.parametrize(("name", "method"), ALL, ids=[repr(method) for _, method in ALL])
def test_every_method_alone(name, method):
    assert_same(recipe_of(method))


@pytest.mark.parametrize("kind", ["multiclass", "regression"])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_method_on_other_tasks_in_a_residual_network(name, kind):
    if (name, kind) == ("LabelSmoothing", "regression"):
        return  # has no meaning there, and no engine takes it
    assert_same(recipe_of(FAMILIES[name][-1], network=STREAM, budget=Budget(8, 16)), kind)


PAIRS = [
    (one, other)
    for one, other in combinations((family[-1] for family in FAMILIES.values()), 2)
    if all(issue.severity != "error" for issue in check_recipe(recipe_of(one, other, network=STREAM)))
]


def test_pairs_leave_out_only_what_a_recipe_must_not_hold():
    assert len(PAIRS) == len(METHODS) * (len(METHODS) - 1) // 2 - 4  # two norms, two dropouts, two decays, two averages


@pytest.mark.slow
@pytest.mark.parametrize(("one", "other"), PAIRS, ids=[f"{type(a).__name__}-{type(b).__name__}" for a, b in PAIRS])
def test_every_pair_of_methods(one, other):
    kind = ("binary", "multiclass")[(len(repr(one)) + len(repr(other))) % 2]
    state = assert_same(recipe_of(one, other, network=STREAM), kind)
    assert state.step == 100 or state.stopped == "early"


EVERYTHING = (
    BatchNorm(ghost_size=5),
    Dropout(p=Linear(0.1, end=0.4), input_p=0.1, where="all"),
    GaussianNoise(std=0.05),
    DropPath(p=0.2),
    Mixup(alpha=0.3),
    FeatureMask(p=0.1),
    GroupLasso(strength=1e-3),
    WeightDecay(weight_decay=0.1, roles=("kernel", "bias", "norm", "embedding", "scale")),
    MaxNorm(max_norm=1.0),
    GradientClip(max_norm=0.5),
    EMA(decay=0.9),
    EarlyStopping(patience=15),
)


@pytest.mark.parametrize("kind", TASKS)
def test_everything_at_once(kind):
    learned = {"num_bins": 4, "num_frequencies": 3, "parametric": True, "input_scale": True, "init": "data"}
    network = replace(STREAM, depth=3, numeric="quantile", activation="gelu", **learned)
    optimizer = AdamW(lr=CosLog(0.01), beta1=0.85, beta2=0.95, eps=1e-6, bias_lr=0.3)
    assert_same(recipe_of(*EVERYTHING, network=network, optimizer=optimizer), kind, make_data(kind, weighted=True))


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("norm", [None, BatchNorm(), LayerNorm()], ids=["bare", "batch", "layer"])
def test_every_activation_with_every_norm(activation, norm, residual):
    network = replace(NETWORK, activation=activation, residual=residual)
    methods = (Dropout(p=0.2),) if norm is None else (norm, Dropout(p=0.2))
    assert_same(recipe_of(*methods, network=network, budget=Budget(6, 16)))


@pytest.mark.parametrize("columns", [(), ("x0", "x1"), ("group", "other"), ("x0",), ("gappy", "group")], ids=str)
@pytest.mark.parametrize("encoding", [("robust", 0), ("robust", 5), ("quantile", 0), ("quantile", 3)], ids=str)
def test_every_way_to_read_columns(columns, encoding):
    """With and without bins, missing values, categories; with numbers alone and categories alone."""
    network = replace(NETWORK, numeric=encoding[0], num_bins=encoding[1], embedding_dim=3)
    data = make_data("multiclass", columns=columns, weighted=True)
    methods = (BatchNorm(), Dropout(p=0.2, input_p=0.2), Mixup(alpha=0.5), FeatureMask(p=0.2))
    assert_same(recipe_of(*methods, network=network, budget=Budget(6, 16)), "multiclass", data)
    assert_same(recipe_of(network=network, budget=Budget(6, 16)), "multiclass", data)


@pytest.mark.parametrize("columns", [(), ("x0", "x1"), ("x0",), ("gappy", "group"), ("group",)], ids=str)
@pytest.mark.parametrize("residual", [False, True])
def test_waves_of_numbers(columns, residual):
    """With bins and without, in every layout of columns; frequencies large enough for several turns."""
    waves = {"num_frequencies": 5, "frequency_scale": 0.7, "periodic_dim": 2, "residual": residual}
    data = make_data("multiclass", columns=columns, weighted=True)
    methods = (LayerNorm(), Dropout(p=0.2, input_p=0.2), Mixup(alpha=0.5), FeatureMask(p=0.2), L2(strength=0.01))
    for network in (replace(NETWORK, **waves), replace(NETWORK, num_bins=3, **waves)):
        assert_same(recipe_of(*methods, network=network, budget=Budget(6, 16)), "multiclass", data)
    assert_same(recipe_of(network=replace(NETWORK, **waves), optimizer=AdamW(bias_lr=0.3)), "multiclass", data)


NORMED = ((), (BatchNorm(),), (BatchNorm(ghost_size=5, affine=False),), (LayerNorm(),))


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("norm", NORMED, ids=["bare", "batch", "ghost", "layer"])
def test_every_parametric_activation_with_every_norm(activation, norm, residual):
    network = replace(NETWORK, activation=activation, residual=residual, parametric=True)
    state = assert_same(recipe_of(*norm, Dropout(p=0.2, where="all"), network=network, budget=Budget(6, 16)))
    assert state.step == 30


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("columns", [(), ("x0",), ("group",)], ids=str)
def test_scales_of_the_inputs(columns, residual):
    """Before and behind noise, bins, waves and categories; also where nothing else of the input learns."""
    data = make_data("multiclass", columns=columns, weighted=True)
    own = {"input_scale": True, "residual": residual}
    for network in (replace(NETWORK, **own), replace(NETWORK, num_bins=3, num_frequencies=2, parametric=True, **own)):
        methods = (LayerNorm(), Dropout(p=0.2, input_p=0.2), GaussianNoise(std=0.1), Mixup(alpha=0.5))
        assert_same(recipe_of(*methods, network=network, budget=Budget(6, 16)), "multiclass", data)
        assert_same(recipe_of(network=network, budget=Budget(6, 16)), "multiclass", data)


MEMBERS = {
    "bare": ((), False),
    "batch": ((BatchNorm(), Dropout(p=0.2, input_p=0.2, where="all"), EMA(decay=0.9)), False),
    "ghost": ((BatchNorm(ghost_size=7), Mixup(alpha=0.5), FeatureMask(p=0.2)), True),
    "layer": ((LayerNorm(), DropPath(p=0.2), GaussianNoise(std=0.1), GroupLasso(strength=0.02)), True),
    "updates": ((L2(strength=0.01), MaxNorm(max_norm=0.3), GradientClip(max_norm=0.5), WeightDecay()), False),
}


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("name", MEMBERS)
def test_members_that_share_a_network(name, kind):
    methods, residual = MEMBERS[name]
    network = replace(NETWORK, num_members=3, residual=residual, activation="silu")
    assert_same(recipe_of(*methods, network=network, budget=Budget(8, 16)), kind, make_data(kind, weighted=True))


def test_members_with_all_that_can_be_learned():
    learned = {"num_bins": 3, "num_frequencies": 2, "parametric": True, "input_scale": True, "init": "data"}
    network = replace(NETWORK, num_members=4, **learned)
    methods = (BatchNorm(), Dropout(p=0.2), LabelSmoothing(smoothing=0.1))
    assert_same(recipe_of(*methods, network=network), "multiclass")


def test_members_of_more_rows_than_are_scored_at_once():
    """Chunks of 256 rows hold 85 of three members each, and are merged."""
    data = make_data("binary", num_rows=400)
    network = replace(STREAM, depth=3, num_members=3, input_scale=True)
    assert_same(recipe_of(BatchNorm(), network=network, budget=Budget(3, 60)), "binary", data, num_train=301)


# Two or three rows normalize each other to almost ±1, whatever they are. What is left of the gradient is a difference
# of almost equal numbers, which Adam then divides by its size: eps keeps the problem itself from losing its digits. For
# the same reason no kinks: a column without variance is nothing but rounding, and ReLU would ask for its sign.
FEW_EPS = 0.1
SMOOTH = replace(NETWORK, activation="gelu")


@pytest.mark.parametrize("ghost_size", [1, 2, 3, 5, 7, 16, 100])
@pytest.mark.parametrize("batch_size", [5, 16, 66, 1000])
def test_ghost_batches_of_uneven_sizes(ghost_size, batch_size):
    norm = BatchNorm(ghost_size=ghost_size, eps=FEW_EPS)
    assert_same(recipe_of(norm, network=SMOOTH, budget=Budget(5, batch_size)))


FEW = ((), (BatchNorm(eps=FEW_EPS), Dropout(p=0.3)), (LayerNorm(), Mixup(alpha=0.5)))


@pytest.mark.parametrize("methods", FEW, ids=str)
@pytest.mark.parametrize("batch_size", [1, 2, 66, 67, 68])
@pytest.mark.parametrize("kind", TASKS)
def test_batches_of_one_row_and_of_all(kind, batch_size, methods):
    assert_same(recipe_of(*methods, network=SMOOTH, budget=Budget(2, batch_size)), kind)


@pytest.mark.parametrize("num_train", [1, 2, 3, 17, 33])
@pytest.mark.parametrize(
    "method",
    [BatchNorm(eps=FEW_EPS), BatchNorm(eps=FEW_EPS, ghost_size=2), LayerNorm(), Mixup(alpha=1.0), SWA()],
    ids=repr,
)
def test_few_training_rows(num_train, method):
    """One row has no variance; 17 and 33 leave a single row that joins its neighbors."""
    for kind in TASKS:
        assert_same(recipe_of(method, network=SMOOTH, budget=Budget(4, 16)), kind, num_train=num_train)


def test_more_rows_than_are_scored_at_once():
    """Scores and exact statistics come in chunks of 256 rows and are merged."""
    data = make_data("regression", num_rows=700)
    methods = (BatchNorm(), Dropout(p=0.2, where="all"))
    for network in (replace(NETWORK, depth=3), replace(STREAM, depth=3)):
        assert_same(recipe_of(*methods, network=network, budget=Budget(3, 100)), "regression", data, num_train=601)


@pytest.mark.parametrize("width", [1, 7, 8, 17, 33])
@pytest.mark.parametrize("depth", [1, 4])
def test_widths_that_fill_no_vector(width, depth):
    for residual in (False, True):
        network = Network(width=width, depth=depth, residual=residual, num_bins=2)
        assert_same(recipe_of(LayerNorm(), Dropout(p=0.1), network=network, budget=Budget(4, 16)), "multiclass")


OPTIMIZERS = (AdamW(lr=0.0), AdamW(lr=0.02, beta1=0.0), AdamW(lr=0.02, beta2=0.3, eps=1e-3, bias_lr=0.0), SGD)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_other_settings_of_the_optimizer(optimizer):
    assert_same(recipe_of(Dropout(p=0.2), WeightDecay(weight_decay=0.01), optimizer=optimizer))


# float32

SOME = {
    "bare": (),
    "batch": (BatchNorm(eps=0.01), Dropout(p=0.3)),
    "ghost": (BatchNorm(ghost_size=5, eps=0.01), Mixup(alpha=0.4)),
    "layer": (LayerNorm(), Dropout(p=0.3), FeatureMask(p=0.2)),
    "stream": (LayerNorm(), DropPath(p=0.2), GaussianNoise(std=0.1), GradientClip(max_norm=0.5)),
    "loss": (L2(strength=0.01), EMA(decay=0.9), MaxNorm(max_norm=0.5)),
}


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("name", SOME)
def test_one_step_in_float32(name, kind):
    """Adam's first step is g / (|g| + eps), in which the rounding of a tiny gradient is as large as that of others."""
    for optimizer, bound in ((SGD, 1e-6), (ADAM, 1e-5)):
        plan = make_plan(
            recipe_of(*SOME[name], optimizer=optimizer, budget=Budget(1, 1000)), kind, DATA[kind], torch.float32
        )
        expected, found = (train(engine, plan, DATA[kind]) for engine in (PLAIN, COMPILED))
        assert found.step == 1
        apart = distances(found, expected)
        assert apart["weights"] < bound
        assert apart["exp_avg"] < 1e-6
        assert max(apart["train_loss"], apart["val_loss"]) < bound


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize(("name", "activation"), [(n, a) for n in SOME for a in ("relu", "gelu")])
def test_a_hundred_steps_of_descent_in_float32(name, activation, kind):
    network = replace(STREAM if name == "stream" else NETWORK, activation=activation)
    plan = make_plan(recipe_of(*SOME[name], network=network, optimizer=SGD), kind, DATA[kind], torch.float32)
    expected, found = (train(engine, plan, DATA[kind]) for engine in (PLAIN, COMPILED))
    assert found.step == 100
    apart = distances(found, expected)
    assert max(apart[one] for one in ("weights", "average", "served", "train_loss", "val_loss")) < 1e-4


def test_descent_is_descent():
    """SGD as it is used above moves as torch.optim.SGD at lr / eps does, along the gradient and by as much."""
    plan = make_plan(recipe_of(optimizer=SGD, budget=Budget(1, 1000)), "binary", DATA["binary"], torch.float64)
    start = PLAIN.start([plan], DATA["binary"])[0].tensors["weights"]
    state = train(PLAIN, plan, DATA["binary"])
    gradient = state.tensors["exp_avg"]  # of the only step, since beta1 is 0
    weights = start.clone().requires_grad_()
    weights.grad = gradient
    torch.optim.SGD([weights], lr=20.0 / 1000.0).step()
    assert float(gradient.abs().max()) > 0.01
    torch.testing.assert_close(state.tensors["weights"] - start, weights.detach() - start, rtol=1e-3, atol=0)


# That the comparison could fail

OTHERS = {
    "seed": lambda plan: replace(plan, seed=4),
    "rate": lambda plan: replace(plan, recipe=replace(plan.recipe, optimizer=AdamW(lr=Cosine(0.0100001)))),
    "strength": lambda plan: replace(plan, recipe=recipe_of(Dropout(p=0.3), L2(strength=1.00001e-3))),
    "probability": lambda plan: replace(plan, recipe=recipe_of(Dropout(p=0.3001), L2(strength=1e-3))),
    "rows": lambda plan: replace(plan, train_rows=np.append(plan.train_rows[:-1], plan.val_rows[0])),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_small_difference_is_seen(name):
    plan = make_plan(recipe_of(Dropout(p=0.3), L2(strength=1e-3)), "binary", DATA["binary"], torch.float64)
    expected, found = train(PLAIN, plan, DATA["binary"]), train(COMPILED, OTHERS[name](plan), DATA["binary"])
    assert distances(found, expected)["weights"] > 100 * EXACT


def test_label_smoothing_of_a_number_falls_back_and_is_named():
    plan = make_plan(recipe_of(LabelSmoothing(smoothing=0.1)), "regression", DATA["regression"], torch.float64)
    assert "LabelSmoothing" in COMPILED.why_not(plan)
