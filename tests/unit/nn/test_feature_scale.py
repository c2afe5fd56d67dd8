"""Learned scales: the formula, where they begin, where they stand in a network."""

import torch

from poise._random import Key
from poise.nn import MLP, FeatureScale, Structure, TabularNetwork, TabularShape


def test_it_begins_as_the_identity_and_scales_each_feature():
    layer = FeatureScale(2, rate=4.0)
    x = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    assert torch.equal(layer(x), x)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.25, -0.25]))
    assert torch.equal(layer(x), x * torch.tensor([2.0, 0.0]))


def test_the_rate_is_that_of_learning():
    """A step of Adam moves the scale by rate times the learning rate."""
    layer = FeatureScale(3, rate=4.0)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    layer(torch.ones(5, 3)).sum().backward()
    optimizer.step()
    torch.testing.assert_close(layer(torch.ones(1, 3)), torch.full((1, 3), 1 - 0.04))


def test_gradients():
    layer = FeatureScale(3).double()
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def outputs(x, weight):
        return torch.func.functional_call(layer, {"weight": weight}, (x,))

    assert torch.autograd.gradcheck(outputs, (x, layer.weight))


def test_it_stands_before_the_first_linear_layer_and_behind_what_the_recipe_inserts():
    structure = Structure(width=4, depth=1, input_scale=True)
    network = MLP(3, 2, structure=structure, layers=lambda kind, *_: torch.nn.Tanh() if kind == "input" else None)
    assert list(dict(network.named_children())) == ["input", "scale", "block0", "output"]
    table = TabularNetwork(TabularShape(2, 3, (4,)), 1, structure=structure, key=Key(0))
    assert len(table.mlp.scale.weight) == 3 + 2  # numbers and the vector of the category
