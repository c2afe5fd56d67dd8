"""Random layers: rows, masks, gradients, steps, and whose random numbers they take."""

import copy

import pytest
import torch
from torch import nn

from poise._errors import ConfigError
from poise._random import Key
from poise.nn import AlphaDropout, ChannelDropout, Dropout, DropPath, GaussianNoise, Stochastic, assign_keys, set_step

KINDS = [Dropout, ChannelDropout, AlphaDropout, DropPath, GaussianNoise]


def randn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def make(kind, strength=0.4, key=None):
    return kind(**{"std" if kind is GaussianNoise else "p": strength}, key=key)


def test_drop_path_drops_whole_rows():
    out = DropPath(0.25, key=Key(0))(torch.ones(4000, 2, 3))
    per_row = out.flatten(1)
    assert torch.equal(per_row.amin(1), per_row.amax(1))
    assert sorted(out.unique().tolist()) == pytest.approx([0, 4 / 3])
    assert float((per_row[:, 0] == 0).float().mean()) == pytest.approx(0.25, abs=4 * (0.1875 / 4000) ** 0.5)


def test_channel_dropout_drops_whole_maps():
    out = ChannelDropout(0.25, key=Key(0))(torch.ones(1000, 4, 2, 3))
    maps = out.flatten(2)
    assert torch.equal(maps.amin(2), maps.amax(2))
    assert sorted(out.unique().tolist()) == pytest.approx([0, 4 / 3])
    assert float((maps[..., 0] == 0).float().mean()) == pytest.approx(0.25, abs=4 * (0.1875 / 4000) ** 0.5)
    rows, key = torch.ones(50, 4), Key(1)
    assert torch.equal(ChannelDropout(0.5, key=key)(rows), Dropout(0.5, key=key)(rows))


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_code_draws_what_the_layer_would(kind):
    layer, x = make(kind, key=Key(2)), torch.randn(20, 3, requires_grad=True)
    twin = copy.deepcopy(layer)
    torch.compiler.reset()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        ours, theirs = compiled(x), twin(x)
        torch.testing.assert_close(ours, theirs)
    grads = [torch.autograd.grad(out.sum(), x)[0] for out in (ours, theirs)]
    torch.testing.assert_close(*grads)
    assert layer.step == twin.step == 2
    assert compiled(x.detach()).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_identity_in_eval_and_at_strength_zero(kind):
    x = randn(5, 3)
    for layer in (make(kind).eval(), make(kind, 0.0).train()):
        assert layer(x) is x
        assert (layer.step, layer.key) == (0, None)


@pytest.mark.parametrize("kind", KINDS)
def test_step_counts_and_set_step_repeats(kind):
    x, layer = randn(50, 3), make(kind, key=Key(1))
    passes = [layer(x) for _ in range(3)]
    assert layer.step == 3
    assert not torch.equal(passes[0], passes[1])
    set_step(nn.Sequential(layer), 1)
    assert torch.equal(layer(x), passes[1])
    assert torch.equal(layer(x), passes[2])
    assert torch.equal(make(kind, key=Key(1))(x), passes[0])
    assert not torch.equal(make(kind, key=Key(2))(x), passes[0])


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind):
    layer = make(kind, key=Key(1))

    def call(x):
        set_step(layer, 4)
        return layer(x)

    assert torch.autograd.gradcheck(call, randn(6, 3).requires_grad_())


@pytest.mark.parametrize("kind", KINDS)
def test_global_random_numbers_are_touched_only_without_a_key(kind):
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    make(kind, key=Key(1))(randn(4, 2))
    make(kind).eval()(randn(4, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    keyless = make(kind)
    keyless(randn(4, 2))
    assert not torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(5)
    again = make(kind)
    again(randn(4, 2))
    assert again.key == keyless.key


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_shape_and_dtype_stay(kind, dtype):
    for shape in ((4, 3), (2, 3, 4), (0, 3), (1,)):
        out = make(kind, key=Key(0))(torch.ones(shape, dtype=dtype))
        assert (out.shape, out.dtype) == (shape, dtype)


def test_assign_keys_names_streams_by_place():
    network = nn.Sequential(Dropout(0.5), nn.Sequential(Dropout(0.5), GaussianNoise(0.1)))
    network[0].step = 7
    assign_keys(network, Key(3))
    layers = [layer for layer in network.modules() if isinstance(layer, Stochastic)]
    assert [layer.key for layer in layers] == [Key(3).stream("mask", name) for name in ("0", "1.0", "1.1")]
    assert len({layer.key for layer in layers}) == 3
    assert {layer.step for layer in layers} == {0}
    twin = copy.deepcopy(network)
    assert torch.equal(twin(randn(9, 2)), network(randn(9, 2)))


@pytest.mark.parametrize("kind", KINDS)
def test_settings_out_of_range(kind):
    name = "std" if kind is GaussianNoise else "p"
    for value in (-0.1, float("nan"), "0.5", *(() if kind is GaussianNoise else (1.0, 1.3))):
        with pytest.raises(ConfigError, match=f"`{name}` must be"):
            kind(value)
    assert repr(kind(0.25)) == f"{kind.__name__}({name}=0.25)"
