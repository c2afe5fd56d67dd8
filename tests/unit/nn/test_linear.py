"""The linear layer: named weights, edges of its shape."""

import pytest
import torch

from poise._random import Key
from poise.nn import Linear


def test_weights_are_a_function_of_the_key_alone():
    state = torch.random.get_rng_state()
    one, other = Linear(4, 3, key=Key(0)), Linear(4, 3, key=Key(0))
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(one.weight, other.weight)
    assert torch.equal(one.bias, other.bias)
    assert torch.equal(Linear(4, 3, bias=False, key=Key(0)).weight, one.weight)
    assert not torch.equal(Linear(4, 3, key=Key(1)).weight, one.weight)
    assert not torch.equal(Linear(1, 3, key=Key(0)).weight[:, 0], Linear(1, 3, key=Key(0)).bias)


def test_without_a_key_torch_decides():
    torch.manual_seed(1)
    one = Linear(4, 3)
    assert not torch.equal(Linear(4, 3).weight, one.weight)
    torch.manual_seed(1)
    assert torch.equal(Linear(4, 3).weight, one.weight)


@pytest.mark.parametrize("shape", [(5, 4), (4,), (2, 3, 4), (0, 4)])
def test_gradients_and_shapes(shape):
    layer = Linear(4, 3, key=Key(0)).double()
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert layer(x).shape == (*shape[:-1], 3)

    def call(x, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(call, (x, layer.weight, layer.bias))
    torch.testing.assert_close(layer(x), x @ layer.weight.T + layer.bias)


def test_no_inputs_leave_the_bias():
    layer = Linear(0, 3, key=Key(0))
    assert torch.equal(layer(torch.zeros(2, 0)), layer.bias.expand(2, 3))
    assert repr(layer) == "Linear(in_features=0, out_features=3, bias=True)"
