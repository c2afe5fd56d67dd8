"""Roles go by module, not by the number of axes."""

from torch import nn

from poise.nn import BatchNorm, CategoricalEmbedding, Linear
from poise.surgery import weights_of


def test_roles():
    network = nn.ModuleDict(
        {
            "linear": Linear(2, 3),
            "norm": BatchNorm(3),
            "torch_norm": nn.LayerNorm((2, 3)),
            "embedding": CategoricalEmbedding((4, 5)),
            "prelu": nn.PReLU(),
            "conv": nn.Conv1d(2, 2, 1),
        }
    )
    roles = {name: weight.role for name, weight in weights_of(network).items()}
    assert roles["linear.weight"] == roles["conv.weight"] == "kernel"
    assert roles["linear.bias"] == roles["conv.bias"] == "bias"
    assert {roles[name] for name in roles if "norm" in name} == {"norm"}
    assert {roles[name] for name in roles if "embedding" in name} == {"embedding"}
    assert roles["prelu.weight"] == "scale"


def test_shared_parameters_count_once():
    layer = nn.Linear(2, 2)
    assert set(weights_of(nn.Sequential(layer, layer))) == {"0.weight", "0.bias"}
