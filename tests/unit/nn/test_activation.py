"""Nonlinearities by name, and those whose strength is learned."""

import pytest
import torch
from torch.nn import functional as F

from poise._errors import ConfigError
from poise.nn import ACTIVATIONS, ParametricActivation, make_activation
from poise.surgery import weights_of

FUNCTIONS = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "selu": F.selu,
    "tanh": torch.tanh,
    "mish": F.mish,
    "identity": lambda x: x,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_and_gradients(name):
    x = torch.linspace(-4, 4, 10, dtype=torch.float64).requires_grad_()  # ten points leave out the kink at 0
    layer = make_activation(name)
    assert torch.equal(layer(x), FUNCTIONS[name](x))
    assert torch.autograd.gradcheck(layer, x)


def test_unknown_names_are_refused_with_the_known_ones():
    assert set(FUNCTIONS) == set(ACTIVATIONS)
    for name in ("ReLU", "", None, "nn.ReLU"):
        with pytest.raises(ConfigError, match="`activation` must be one of 'relu', "):
            make_activation(name)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_learned_strength_mixes_the_nonlinearity_with_its_input(name):
    layer = ParametricActivation(name, 2, rate=4.0).double()
    x = torch.linspace(-4, 4, 10, dtype=torch.float64).reshape(5, 2).requires_grad_()
    torch.testing.assert_close(layer(x), FUNCTIONS[name](x))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([-0.25, 0.125]))
    expected = torch.stack((x[:, 0], 1.5 * FUNCTIONS[name](x[:, 1]) - 0.5 * x[:, 1]), dim=1)
    torch.testing.assert_close(layer(x), expected)

    def outputs(x, weight):
        return torch.func.functional_call(layer, {"weight": weight}, (x,))

    assert torch.autograd.gradcheck(outputs, (x, layer.weight))


def test_a_learned_strength_is_no_kernel_that_decays():
    assert weights_of(ParametricActivation("relu", 3))["weight"].role == "scale"
    with pytest.raises(ConfigError, match="`activation` must be one of"):
        ParametricActivation("ReLU", 3)
