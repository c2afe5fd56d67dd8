"""The fused layer against torch's own layers: values, gradients, running statistics, images, state and steps."""

import copy

import pytest
import torch
from torch import nn

from poise._errors import ConfigError
from poise._random import Key
from poise.nn import ACTIVATIONS, Stochastic, assign_keys, set_step
from poise.nn._fused import NormActDropout

SHAPES = {"rows": (20, 6), "sequence": (5, 6, 7), "images": (4, 6, 3, 5)}
TORCH = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pair(ndim, p=0.0, activation="relu", **settings):
    """Our layer, and torch's norm and nonlinearity with the same random state."""
    norm = TORCH[ndim](6, **settings).double()
    state = {"weight": randn(6, seed=1), "bias": randn(6, seed=2), "running_mean": randn(6, seed=3),
             "running_var": randn(6, seed=4).square(), "num_batches_tracked": torch.tensor(5)}  # fmt: skip
    norm.load_state_dict({name: state[name] for name in norm.state_dict()})
    ours = NormActDropout(6, p, activation=activation, key=Key(3), **settings).double()
    ours.load_state_dict(norm.state_dict())
    return ours, norm, ACTIVATIONS[activation]()


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("p", [0.0, 0.4])
def test_equals_torch_in_training_and_eval(kind, p):
    x = randn(*SHAPES[kind], seed=7)
    ours, norm, activation = pair(x.ndim, p, "gelu", eps=1e-3, momentum=0.3)
    g = randn(*x.shape, seed=8)
    for step in range(3):
        mine, theirs = (x + step).requires_grad_(), (x + step).requires_grad_()
        y, wanted = ours(mine), activation(norm(theirs))
        if p:
            rows = (x.shape[0], *x.shape[2:], x.shape[1])
            wanted = wanted * Key(3, step).keep_mask(*rows, p=p, dtype=x.dtype).movedim(-1, 1)
        torch.testing.assert_close(y, wanted, rtol=1e-12, atol=1e-12)
        grads = torch.autograd.grad(y, (mine, ours.weight, ours.bias), g)
        exact = torch.autograd.grad(wanted, (theirs, norm.weight, norm.bias), g)
        for one, other in zip(grads, exact, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)
    for name, value in norm.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-12, atol=0)
    ours.eval(), norm.eval()
    torch.testing.assert_close(ours(x), activation(norm(x)), rtol=1e-12, atol=1e-12)
    assert int(ours.num_batches_tracked) == 8


def test_the_state_is_torchs():
    ours, norm, _ = pair(2)
    assert list(ours.state_dict()) == list(norm.state_dict())
    norm.load_state_dict(ours.state_dict())
    bare = NormActDropout(6, affine=False)
    bare.load_state_dict(nn.BatchNorm2d(6, affine=False).state_dict())
    assert list(NormActDropout(6, norm="layer").state_dict()) == list(nn.LayerNorm(6).state_dict())
    assert list(NormActDropout(6, norm="none", affine=False).state_dict()) == []


def test_layer_norm_and_no_norm():
    x = randn(9, 6)
    layer = NormActDropout(6, 0.0, activation="silu", norm="layer").double()
    wanted = nn.functional.silu(nn.functional.layer_norm(x, (6,), layer.weight, layer.bias))
    torch.testing.assert_close(layer(x), wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer.eval()(x), wanted, rtol=1e-12, atol=1e-12)
    none = NormActDropout(6, 0.0, activation="tanh", norm="none", affine=False).double()
    torch.testing.assert_close(none(x), x.tanh(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_running_statistics_of_single_precision(dtype):
    x = (randn(500, 6) * 3 + 2).to(dtype)
    ours, norm = NormActDropout(6, 0.0), nn.BatchNorm1d(6)
    ours(x), norm(x.float())
    torch.testing.assert_close(ours.running_mean, norm.running_mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.running_var, norm.running_var, rtol=1e-5, atol=1e-6)
    assert ours(x).dtype == dtype


def test_channels_last_is_not_copied_and_gives_the_same():
    x = randn(4, 6, 3, 5)
    last = x.contiguous(memory_format=torch.channels_last)
    ours = NormActDropout(6, 0.4, key=Key(1)).double()
    twin = copy.deepcopy(ours)
    y, other = ours(x), twin(last)
    assert torch.equal(y, other)
    assert other.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(1, 6), (0, 6), (1, 6, 1, 1)])
def test_what_has_no_variance_is_normalized_like_in_eval_mode(shape):
    ours, _, _ = pair(2)
    x, before = randn(*shape), copy.deepcopy(ours.state_dict())
    y = ours(x)
    assert torch.equal(y, ours.eval()(x))
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())


def test_steps_and_keys_name_the_masks():
    network = nn.Sequential(NormActDropout(6, 0.5), NormActDropout(6, 0.5)).double()
    assign_keys(network, Key(4))
    assert [layer.key for layer in network if isinstance(layer, Stochastic)] == [
        Key(4).stream("mask", "0"), Key(4).stream("mask", "1")
    ]  # fmt: skip
    x = randn(30, 6)
    first, second = network(x), network(x)
    assert not torch.equal(first, second)
    assert network[0].step == 2
    set_step(network, 0)
    assert torch.equal(network(x), first)
    network[0].p = 0.1
    set_step(network, 0)
    assert not torch.equal(network(x), first)


def test_eval_and_zero_draw_nothing():
    layer = NormActDropout(6, 0.5)
    layer.eval()(torch.ones(3, 6))
    assert (layer.step, layer.key) == (0, None)
    layer.p = 0.0
    layer.train()(torch.randn(3, 6))
    assert (layer.step, layer.key) == (0, None)


def test_compile_and_export():
    layer = NormActDropout(6, 0.5, key=Key(2))
    twin, x = copy.deepcopy(layer), torch.randn(8, 6)
    with torch._dynamo.config.patch(allow_unspec_int_on_nn_module=True):
        torch._dynamo.reset()
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        for _ in range(12):  # more steps than torch compiles versions
            assert torch.equal(compiled(x), twin(x))
    assert torch.equal(layer.running_var, twin.running_var)
    layer, x = layer.double().eval(), x.double()
    program = torch.export.export(layer, (x,))
    assert "poise" not in str(program.graph)  # other runtimes know torch's operators only
    torch.testing.assert_close(program.module()(x), layer(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "name"),
    [({"p": 1.0}, "p"), ({"p": -0.1}, "p"), ({"eps": 0.0}, "eps"), ({"momentum": 1.5}, "momentum"),
     ({"activation": "swish"}, "activation"), ({"norm": "group"}, "norm"), ({"num_features": 0}, "num_features")],
)  # fmt: skip
def test_settings_out_of_range(settings, name):
    with pytest.raises(ConfigError, match=f"`{name}` must be"):
        NormActDropout(**{"num_features": 6, **settings})


def test_another_number_of_channels_is_refused():
    for shape in ((5,), (5, 3), (5, 3, 6)):
        with pytest.raises(ConfigError, match=r"must be \(N, 6, \.\.\.\)"):
            NormActDropout(6)(torch.ones(shape))


def test_what_it_prints():
    text = "6, p=0.5, activation='relu', norm='batch', eps=1e-05, momentum=0.1"
    assert repr(NormActDropout(6)) == f"NormActDropout({text})"


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_pass_that_checkpointing_repeats_moves_nothing(reentrant):
    layer = NormActDropout(6, 0.5, key=Key(2))
    twin, x = copy.deepcopy(layer), torch.randn(8, 6, requires_grad=True)
    y = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=reentrant)
    expected = twin(x)
    (gradient,) = torch.autograd.grad(expected.square().sum(), x)
    y.square().sum().backward()
    assert torch.equal(y, expected)
    assert torch.equal(x.grad, gradient)
    assert all(map(torch.equal, layer.buffers(), twin.buffers()))
    assert layer.step == twin.step == 1
