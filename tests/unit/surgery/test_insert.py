"""The policies: what goes where, what is set instead of stacked, and what is skipped with its reason."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

import poise
from poise import PoiseWarning, Recipe
from poise.functional.schedule import Linear
from poise.methods import AlphaDropout, BatchNorm, Dropout, DropPath, GaussianNoise, LayerNorm
from poise.nn import BatchNorm as BatchNormLayer
from poise.nn import ChannelDropout
from poise.nn import Dropout as DropoutLayer
from poise.nn import DropPath as DropPathLayer
from poise.surgery._graph._call import call_model

from .test_sites import Functional, Residual

pytestmark = pytest.mark.filterwarnings("ignore:.*found no place:poise.PoiseWarning")


def insert(model, example, *methods, **settings):
    return poise.apply(Recipe(methods=methods), model, example=example, **settings)


def mlp():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))


def images():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), Residual(4, 4), Residual(4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )


class Recurrent(nn.Module):
    def __init__(self, kind=nn.LSTM, num_layers: int = 2) -> None:
        super().__init__()
        self.inner, self.head = kind(4, 8, num_layers, batch_first=True), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.inner(x)[0][:, -1])


def test_norms_take_the_bias_over_and_eval_outputs_stay():
    torch.manual_seed(0)
    model, x = mlp(), torch.randn(5, 4)
    bias, before = model[0].bias, model(x)
    regimen = insert(model, x, BatchNorm())
    assert model[0].bias is None
    assert model[0].poise_batch_norm.running_mean.equal(-bias)
    torch.testing.assert_close(model.eval()(x), before, rtol=1e-5, atol=1e-6)
    regimen.undo()
    assert model[0].bias is bias
    assert list(model.state_dict()) == list(mlp().state_dict())


def test_a_tied_or_frozen_bias_stays():
    tied = mlp()
    tied[2].bias = tied[0].bias
    assert "is tied" in insert(tied, torch.zeros(2, 4), BatchNorm()).diff()
    assert tied[0].bias is not None
    frozen = mlp()
    frozen[0].requires_grad_(False)
    assert "is frozen" in insert(frozen, torch.zeros(2, 4), BatchNorm()).diff()
    assert frozen[0].bias is not None
    assert frozen[2].bias is None


def test_dropout_comes_after_the_last_norm():
    model = mlp()
    diff = insert(model, torch.zeros(2, 4), BatchNorm(), Dropout(p=0.2)).diff()
    assert not hasattr(model[1], "poise_dropout")
    assert isinstance(model[3].poise_dropout, DropoutLayer)
    assert "skipped Dropout: a batch normalization lies downstream" in diff
    everywhere = mlp()
    insert(everywhere, torch.zeros(2, 4), BatchNorm(), Dropout(p=0.2, where="all"))
    assert hasattr(everywhere[1], "poise_dropout")


def test_maps_lose_whole_channels():
    model = images()
    insert(model, torch.zeros(2, 3, 8, 8), Dropout(p=0.2))
    (layer,) = [one for one in model.modules() if isinstance(one, ChannelDropout)]
    assert layer.p == 0.2


def test_what_is_there_is_set_and_not_stacked():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))
    regimen = insert(model, torch.zeros(2, 4), Dropout(p=0.2))
    assert model[2].p == 0.2
    assert sum(isinstance(one, DropoutLayer) for one in model.modules()) == 0
    assert "set, not stacked" in regimen.diff()
    regimen.undo()
    assert model[2].p == 0.5


def test_the_strength_of_what_is_there_follows_a_schedule():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))
    regimen = insert(model, torch.zeros(2, 4), Dropout(p=Linear(0.0, end=0.4)), num_steps=4)
    optimizer = torch.optim.SGD(regimen.param_groups(lr=0.1))
    seen = []
    for _ in range(4):
        seen.append(model[2].p)
        model(torch.randn(8, 4)).sum().backward()
        regimen.step(optimizer)
    assert seen == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert model[2].p == pytest.approx(0.4)


def test_functional_dropout_is_left_and_said():
    class Own(Functional):
        def forward(self, x):
            return self.two(functional.dropout(functional.relu(self.one(x)), 0.3, self.training))

    with pytest.warns(PoiseWarning, match="Dropout found no place in Own: `dropout` is called in forward"):
        regimen = insert(Own(), torch.zeros(2, 4), Dropout(p=0.2))
    assert "`dropout` is called in forward with a p of its own" in regimen.diff()


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers_drop_between_their_layers(kind):
    model = Recurrent(kind)
    regimen = insert(model, torch.zeros(2, 3, 4), Dropout(p=0.2))
    assert model.inner.dropout == 0.2
    assert isinstance(model.head.poise_dropout, DropoutLayer)
    regimen.undo()
    assert model.inner.dropout == 0.0
    single = Recurrent(kind, num_layers=1)
    insert(single, torch.zeros(2, 3, 4), Dropout(p=0.2))
    assert single.inner.dropout == 0.0


def test_drop_path_grows_with_depth():
    model = nn.Sequential(*[Residual(3, 3) for _ in range(3)])
    diff = insert(model, torch.zeros(2, 3, 4, 4), DropPath(p=0.2)).diff()
    assert [one.p for one in model.modules() if isinstance(one, DropPathLayer)] == [0.1, 0.2]
    assert "kept: the strength of DropPath is 0 here" in diff


def test_stochastic_depth_of_others_is_replaced():
    class StochasticDepth(nn.Module):
        def forward(self, x):
            return x * (torch.rand(len(x), 1) > 0.5) if self.training else x

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.drop_path = nn.Linear(4, 4), StochasticDepth()

        def forward(self, x):
            return x + self.drop_path(self.inner(x))

    model = nn.Sequential(Block(), Block())
    theirs = model[1].drop_path
    regimen = insert(model, torch.zeros(2, 4), DropPath(p=0.2))
    assert [block.drop_path.p for block in model] == [0.0, 0.2]
    regimen.undo()
    assert model[1].drop_path is theirs


def test_a_batch_norm_is_reconfigured():
    model = images()
    norms = [one for one in model.modules() if isinstance(one, nn.BatchNorm2d)]
    regimen = insert(model, torch.zeros(2, 3, 8, 8), BatchNorm(momentum=0.3, eps=0.1))
    assert {(one.momentum, one.eps) for one in norms} == {(0.3, 1e-5)}
    regimen.undo()
    assert {one.momentum for one in norms} == {0.1}


def test_ghost_batches_share_parameters_and_statistics():
    model, x = images(), torch.randn(6, 3, 8, 8)
    old, keys = model[1].norm1, list(model.state_dict())
    regimen = insert(model, x, BatchNorm(ghost_size=2))
    new = model[1].norm1
    assert isinstance(new, BatchNormLayer)
    assert new.ghost_size == 2
    assert new.weight is old.weight
    assert new.running_mean is old.running_mean
    assert list(model.state_dict()) == keys
    regimen.undo()
    assert model[1].norm1 is old


def test_sequences_have_layer_norm_and_no_batch_norm():
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))
    with pytest.warns(PoiseWarning, match="BatchNorm found no place"):
        diff = insert(model, torch.zeros(2, 5, 4), BatchNorm()).diff()
    assert "positions are no rows" in diff
    insert(model, torch.zeros(2, 5, 4), LayerNorm())
    assert "poise_layer_norm" in dict(model[0].named_children())


def test_maps_have_group_norm_for_layer_norm():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    insert(model, torch.zeros(2, 3, 5, 5), LayerNorm())
    assert isinstance(model[0].poise_layer_norm, nn.GroupNorm)


def test_transformers_get_their_dropouts_set():
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
    diff = insert(model, torch.zeros(2, 5, 8), Dropout(p=0.3), DropPath(p=0.2), BatchNorm()).diff()
    assert {one.p for one in model.modules() if isinstance(one, nn.Dropout)} == {0.3}
    assert model.layers[0].self_attn.dropout == 0.3
    paths = [one.p for one in model.modules() if isinstance(one, DropPathLayer)]
    assert paths == pytest.approx([0.2 / 3, 0.4 / 3, 0.2])
    assert "skipped BatchNorm: LayerNorm normalizes there" in diff


def test_a_shared_module_gets_its_layer_once():
    relu, linear = nn.ReLU(), nn.Linear(4, 4)
    model = nn.Sequential(linear, relu, linear, relu, nn.Linear(4, 2))
    insert(model, torch.zeros(3, 4), Dropout(p=0.2), BatchNorm())
    assert sum(isinstance(one, BatchNormLayer) for one in model.modules()) == 1
    # Of its two calls one is upstream of the normalization, so the shared activation cannot have the dropout.
    assert isinstance(model[4].poise_dropout, DropoutLayer)


def test_a_shared_block_gets_the_mean_strength_of_its_calls():
    block = Residual(3, 3)
    model = nn.Sequential(block, block, Residual(3, 3))
    insert(model, torch.zeros(2, 3, 4, 4), DropPath(p=0.4))
    assert [one.p for one in model.modules() if isinstance(one, DropPathLayer)] == pytest.approx([0.1, 0.4])


def test_maps_that_are_flattened_at_once_lose_no_single_elements():
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(16, 2)

        def forward(self, x):
            return self.head(functional.relu(self.conv(x)).flatten(1))

    with pytest.warns(PoiseWarning, match="Dropout found no place in Flat: no module returns this value alone"):
        insert(Flat(), torch.zeros(2, 3, 4, 4), Dropout(p=0.2))


def test_noise_goes_to_the_first_layer():
    model = mlp()
    insert(model, torch.zeros(3, 4), GaussianNoise(std=0.1))
    assert model[0].poise_gaussian_noise.std == 0.1


def test_alpha_dropout_leaves_other_dropouts():
    model = nn.Sequential(nn.Linear(4, 8), nn.SELU(), nn.Dropout(0.5), nn.Linear(8, 2))
    assert "skipped AlphaDropout: Dropout drops there" in insert(model, torch.zeros(2, 4), AlphaDropout()).diff()
    assert model[2].p == 0.5


def test_parametrized_layers_are_hosts():
    model, x = mlp(), torch.randn(6, 4)
    parametrizations.weight_norm(model[0])
    before = model(x)
    regimen = insert(model, x, BatchNorm(), Dropout(p=0.2))
    torch.testing.assert_close(model.eval()(x), before, rtol=1e-5, atol=1e-6)
    regimen.undo()
    assert model(x).equal(before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_new_layers_have_the_dtype_of_their_host(dtype):
    model, x = mlp().to(dtype), torch.randn(6, 4, dtype=dtype)
    insert(model, x, BatchNorm(), Dropout(p=0.2))
    assert {one.dtype for one in model.parameters()} == {dtype}
    assert model(x).dtype == dtype


def test_models_that_are_called_by_name():
    class Named(Functional):
        def forward(self, *, pixels):
            return super().forward(pixels)

    model, batch = Named(), {"pixels": torch.zeros(3, 4), "labels": torch.zeros(3)}
    insert(model, batch, Dropout(p=0.2), GaussianNoise())
    assert call_model(model.train(), batch).shape == (3, 2)
    assert {type(one).__name__ for one in model.modules()} >= {"Dropout", "GaussianNoise"}
