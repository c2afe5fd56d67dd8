"""The network of a recipe: layers at their sites, strengths that follow progress, random numbers by name."""

import numpy as np
import polars as pl
import pytest
import torch

from poise._random import Key
from poise.data import Encoder, infer_schema
from poise.functional.schedule import Linear
from poise.methods import BatchNorm, Dropout, DropPath, GaussianNoise, LayerNorm, WeightDecay
from poise.nn import BatchNorm as BatchNormLayer
from poise.nn import Dropout as DropoutLayer
from poise.nn import DropPath as DropPathLayer
from poise.nn import Stochastic
from poise.recipe import Network, Recipe
from poise.train import Multiclass, build_network

ROWS = np.arange(40)
TABLE = pl.DataFrame({"x": np.linspace(-1, 1, 40) ** 3, "group": ["a", "b"] * 20})
PLAIN, RESIDUAL = Network(width=6, depth=3), Network(width=6, depth=3, residual=True)


def build(*methods, network=PLAIN, seed=0, **changes):
    encoder = Encoder.fit(TABLE, infer_schema(TABLE), ROWS, numeric=network.numeric, num_bins=network.num_bins)
    return build_network(Recipe(methods=methods, network=network), encoder, Multiclass(3), key=Key(seed), **changes)


def places(built, kind):
    return [name for name, layer in built.network.named_modules() if isinstance(layer, kind)]


@pytest.mark.parametrize(
    ("methods", "network", "expected"),
    [
        ((Dropout(),), PLAIN, ["mlp.block0.hidden", "mlp.block1.hidden", "mlp.block2.hidden"]),
        ((Dropout(input_p=0.1), BatchNorm()), PLAIN, ["mlp.input", "mlp.block2.hidden"]),
        ((Dropout(where="all"), BatchNorm()), PLAIN, [f"mlp.block{block}.hidden" for block in range(3)]),
        ((Dropout(), LayerNorm()), PLAIN, [f"mlp.block{block}.hidden" for block in range(3)]),
        ((Dropout(), BatchNorm()), RESIDUAL, ["mlp.block2.hidden"]),
    ],
)
def test_dropout_comes_after_the_last_batch_norm(methods, network, expected):
    assert places(build(*methods, network=network), DropoutLayer) == expected


def test_layers_at_one_site_follow_in_the_order_of_the_recipe():
    for methods in ((GaussianNoise(), Dropout(input_p=0.1)), (Dropout(input_p=0.1), GaussianNoise())):
        kinds = [type(layer).__name__ for layer in build(*methods).network.mlp.input]
        assert kinds == [type(method).__name__ for method in methods]


@pytest.mark.parametrize(("depth", "expected"), [(1, [0.4]), (2, [0.0, 0.4]), (3, [0.0, 0.2, 0.4])])
def test_drop_path_grows_from_the_first_block_to_the_last(depth, expected):
    built = build(DropPath(p=0.4), network=Network(width=6, depth=depth, residual=True))
    found = [layer.p for layer in built.network.modules() if isinstance(layer, DropPathLayer)]
    assert found == pytest.approx(expected)


def test_progress_reaches_scheduled_layers_and_no_others():
    built = build(Dropout(p=Linear(0.0, end=0.4), input_p=0.1), GaussianNoise(std=0.2))
    for progress, p in ((0.0, 0.0), (0.5, 0.2), (1.0, 0.4), (0.25, 0.1)):
        built.set_progress(progress)
        layers = {name: layer for name, layer in built.network.named_modules() if isinstance(layer, Stochastic)}
        found = [layer.p for name, layer in layers.items() if name.endswith("hidden")]
        assert found == pytest.approx([p] * 3)
        assert built.network.mlp.input[0].p == 0.1
        assert built.network.mlp.input[1].std == 0.2
    assert build(Dropout(), GaussianNoise(), WeightDecay()).scheduled == []


def test_weights_are_named_by_the_key_and_do_not_depend_on_regularizers():
    bare, noisy, other = build(), build(Dropout(), GaussianNoise()), build(seed=1)
    for (name, one), same, another in zip(
        bare.network.named_parameters(), noisy.network.parameters(), other.network.parameters(), strict=True
    ):
        assert torch.equal(one, same), name
        assert not torch.equal(one, another), name


def test_masks_differ_between_layers_and_seeds():
    keys = [
        layer.key
        for seed in (0, 1)
        for layer in build(Dropout(), seed=seed).network.modules()
        if isinstance(layer, Stochastic)
    ]
    assert len(set(keys)) == 6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_and_shape(dtype):
    built = build(BatchNorm(), dtype=dtype)
    assert {parameter.dtype for parameter in built.network.parameters()} == {dtype}
    assert len(places(built, BatchNormLayer)) == 3
    inputs = Encoder.fit(TABLE, infer_schema(TABLE), ROWS, numeric="robust", num_bins=0).transform(TABLE, dtype=dtype)
    assert built.network(inputs).shape == (40, 3)
    assert built.network(inputs).dtype == dtype


def test_members_answer_each_for_itself_in_training_and_as_their_mean_in_eval_mode():
    built = build(network=Network(width=6, depth=2, num_members=4), dtype=torch.float64)
    inputs = Encoder.fit(TABLE, infer_schema(TABLE), ROWS).transform(TABLE, dtype=torch.float64)
    task, outputs = Multiclass(3), built.network(inputs)
    assert outputs.shape == (40, 4, 3)
    mean = task.predict(outputs.flatten(0, 1)).view(40, 4, 3).mean(dim=1)
    torch.testing.assert_close(task.predict(built.network.eval()(inputs)), mean)
