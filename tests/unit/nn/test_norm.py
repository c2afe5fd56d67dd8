"""Normalizations: the identity they can be, ghosts, single rows, gradients."""

import pytest
import torch

from poise._errors import ConfigError
from poise.nn import BatchNorm, LayerNorm


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_batch_norm_is_the_identity_with_the_batch_deviation_and_mean():
    """Ioffe and Szegedy, section 3: weight = sqrt(var + eps) and bias = mean recover the input."""
    x = 5 * randn(20, 3) - 2
    layer = BatchNorm(3, eps=1e-3).double()
    layer.weight.data, layer.bias.data = torch.sqrt(x.var(0, correction=0) + 1e-3), x.mean(0)
    torch.testing.assert_close(layer(x), x, rtol=1e-12, atol=1e-12)


def test_layer_norm_is_the_identity_on_rows_of_equal_statistics():
    x = randn(1, 6).expand(4, 6)
    layer = LayerNorm(6, eps=1e-3).double()
    layer.weight.data = torch.sqrt(x[0].var(correction=0) + 1e-3).expand(6).clone()
    layer.bias.data = x[0].mean().expand(6).clone()
    torch.testing.assert_close(layer(x), x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("rows", "ghost_size", "sizes"),
    [(12, 4, [4, 4, 4]), (13, 4, [5, 4, 4]), (11, 4, [6, 5]), (7, 4, [7]), (3, 8, [3]), (5, 1, [3, 2]), (2, 1, [2])],
)
def test_ghosts_equal_splitting_by_hand(rows, ghost_size, sizes):
    x = 3 * randn(rows, 2) + 1
    layer = BatchNorm(2, ghost_size=ghost_size, momentum=0.25).double()
    out = layer(x)
    parts = x.split(sizes)
    expected = torch.cat([(part - part.mean(0)) / torch.sqrt(part.var(0, correction=0) + 1e-5) for part in parts])
    torch.testing.assert_close(out, expected)
    mean, var = (torch.stack(found).mean(0) for found in zip(*((p.mean(0), p.var(0)) for p in parts), strict=True))
    torch.testing.assert_close(layer.running_mean, 0.25 * mean)
    torch.testing.assert_close(layer.running_var, 0.75 + 0.25 * var)
    assert layer.num_batches_tracked == 1


def test_ghosts_do_not_matter_in_eval_mode():
    x = randn(9, 2)
    plain, ghostly = BatchNorm(2).double().eval(), BatchNorm(2, ghost_size=2).double().eval()
    assert torch.equal(plain(x), ghostly(x))


def test_a_single_row_is_normalized_as_in_eval_and_moves_nothing():
    layer = BatchNorm(3, ghost_size=2).double()
    layer(randn(8, 3))
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    row = randn(1, 3, seed=1)
    training = layer.train()(row)
    assert torch.equal(training, layer.eval()(row))
    assert all(torch.equal(before[name], tensor) for name, tensor in layer.state_dict().items())


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "layer",
    [BatchNorm(3), BatchNorm(3, ghost_size=3), BatchNorm(3, affine=False), LayerNorm(3), LayerNorm(3, affine=False)],
)
def test_gradients(layer, training, rows):
    layer = layer.double().train(training)
    weights = [parameter.detach() + 0.3 * randn(3, seed=5) for parameter in layer.parameters()]
    names = [name for name, _ in layer.named_parameters()]

    def call(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, [randn(rows, 3).requires_grad_(), *(one.requires_grad_() for one in weights)])


def test_constant_features_become_zero():
    x = torch.full((6, 2), 4.0)
    assert torch.equal(BatchNorm(2)(x), torch.zeros(6, 2))
    assert torch.equal(LayerNorm(2)(x), torch.zeros(6, 2))


@pytest.mark.parametrize(
    ("name", "value"), [("eps", 0.0), ("eps", -1), ("momentum", 1.1), ("ghost_size", -1), ("ghost_size", 2.0)]
)
def test_settings_out_of_range(name, value):
    with pytest.raises(ConfigError, match=f"`{name}` must be"):
        BatchNorm(3, **{name: value})
    for kind in (BatchNorm, LayerNorm):
        with pytest.raises(ConfigError, match="`num_features` must be"):
            kind(0)
        with pytest.raises(ConfigError, match="`eps` must be"):
            kind(3, eps=0)


def test_prints_as_torch_does():
    assert repr(BatchNorm(4, ghost_size=16)) == "BatchNorm(4, eps=1e-05, momentum=0.1, ghost_size=16)"
    assert repr(LayerNorm(4)) == "LayerNorm(4, eps=1e-05)"
