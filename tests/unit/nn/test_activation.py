"""Nonlinearities by name."""

import pytest
import torch
from torch.nn import functional as F

from poise._errors import ConfigError
from poise.nn import ACTIVATIONS, make_activation

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
