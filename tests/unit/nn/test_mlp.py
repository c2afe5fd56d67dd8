"""Structure of perceptrons: where layers are asked for, where biases are, what a residual block computes."""

import pytest
import torch
from torch import nn

from poise._random import Key
from poise.nn import MLP, BatchNorm, Dropout, LayerNorm, Linear, ResidualBlock, Structure
from poise.nn._mlp import no_layers


def recorder(supply):
    """A supplier of layers that writes down what it is asked for."""
    asked = []

    def layers(kind, num_features, block):
        asked.append((kind, num_features, block))
        return supply(kind, num_features)

    return asked, layers


def test_plain_network_asks_at_its_sites():
    asked, layers = recorder(lambda kind, width: None)
    MLP(5, 2, structure=Structure(width=8, depth=2), layers=layers, key=Key(0))
    assert asked == [("input", 5, 0), ("norm", 8, 0), ("hidden", 8, 0), ("norm", 8, 1), ("hidden", 8, 1)]


def test_residual_network_asks_at_its_sites():
    asked, layers = recorder(lambda kind, width: None)
    MLP(5, 2, structure=Structure(width=8, depth=2, residual=True), layers=layers, key=Key(0))
    expected = [("norm", 8, 0), ("hidden", 8, 0), ("branch", 8, 0), ("norm", 8, 1), ("hidden", 8, 1), ("branch", 8, 1)]
    assert asked == [("input", 5, 0), *expected]


@pytest.mark.parametrize(
    ("norm", "has_bias"),
    [
        (BatchNorm, False),
        (lambda width: nn.Sequential(BatchNorm(width), Dropout(0.1)), False),
        (LayerNorm, True),
        (lambda width: nn.Sequential(Dropout(0.1), BatchNorm(width)), True),
        (lambda width: None, True),
    ],
)
def test_a_linear_that_feeds_a_batch_norm_has_no_bias(norm, has_bias):
    network = MLP(
        3, 2, structure=Structure(width=4, depth=2), layers=lambda kind, n, _: norm(n) if kind == "norm" else None
    )
    linears = [layer for layer in network.modules() if isinstance(layer, Linear)]
    assert [layer.bias is not None for layer in linears] == [has_bias, has_bias, True]


def test_plain_network_is_its_formula():
    structure = Structure(width=4, depth=2, activation="tanh")
    scale = {"input": 2.0, "norm": 3.0, "hidden": 5.0}

    class Times(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def forward(self, x):
            return self.factor * x

    network = MLP(3, 2, structure=structure, layers=lambda kind, *_: Times(scale[kind]), key=Key(0)).double()
    x = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = 2 * x
    for block in (network.block0, network.block1):
        y = 5 * torch.tanh(3 * (y @ block.linear.weight.T + block.linear.bias))
    torch.testing.assert_close(network(x), y @ network.output.weight.T + network.output.bias)
    assert list(dict(network.named_children())) == ["input", "block0", "block1", "output"]
    assert [name for name, _ in network.block0.named_children()] == ["linear", "norm", "activation", "hidden"]


def test_residual_network_is_its_formula():
    structure = Structure(width=4, depth=2, residual=True)
    network = MLP(3, 2, structure=structure, key=Key(0)).double()
    x = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = network.stem(x)
    for block in (network.block0, network.block1):
        y = y + block.linear2(torch.relu(block.linear1(y)))
    torch.testing.assert_close(network(x), network.output(torch.relu(y)))


def test_a_residual_block_whose_branch_is_silent_is_the_identity():
    block = ResidualBlock(Structure(width=4), 0, layers=no_layers, key=Key(0))
    block.linear2.weight.data.zero_()
    block.linear2.bias.data.zero_()
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("residual", [False, True])
def test_gradients_and_named_weights(residual):
    structure = Structure(width=4, depth=2, activation="gelu", residual=residual)
    state = torch.random.get_rng_state()
    one, other, third = (MLP(3, 2, structure=structure, key=Key(seed)) for seed in (0, 0, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    for (name, a), b, c in zip(one.named_parameters(), other.parameters(), third.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert not torch.equal(a, c), name
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(one.double(), x.requires_grad_())


@pytest.mark.parametrize("residual", [False, True])
def test_no_two_layers_begin_with_the_same_weights(residual):
    network = MLP(4, 4, structure=Structure(width=4, depth=3, residual=residual), key=Key(0))
    linears = [layer for layer in network.modules() if isinstance(layer, Linear)]
    assert len(linears) == (8 if residual else 4)
    assert len({tuple(layer.weight.flatten().tolist()) for layer in linears}) == len(linears)


def test_deeper_networks_begin_with_the_same_weights():
    shallow, deep = (MLP(3, 2, structure=Structure(width=4, depth=depth), key=Key(0)) for depth in (1, 3))
    assert torch.equal(shallow.block0.linear.weight, deep.block0.linear.weight)
    assert torch.equal(shallow.output.weight, deep.output.weight)
