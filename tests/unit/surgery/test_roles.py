"""Roles go by module, not by the number of axes."""

from torch import nn
from torch.nn.utils import parametrizations, parametrize

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


def test_the_direction_of_a_weight_normalized_kernel_is_a_scale():
    model = parametrizations.weight_norm(nn.Linear(4, 3))
    roles = {name.rpartition(".")[2]: one.role for name, one in weights_of(model).items()}
    assert roles == {"bias": "bias", "original0": "kernel", "original1": "scale"}
    spectral = parametrizations.spectral_norm(nn.Linear(4, 3))
    assert weights_of(spectral)["parametrizations.weight.original"].role == "kernel"
    bias = nn.Linear(4, 3)
    parametrize.register_parametrization(bias, "bias", nn.Tanh())
    assert weights_of(bias)["parametrizations.bias.original"].role == "bias"


def test_shared_parameters_count_once():
    layer = nn.Linear(2, 2)
    assert set(weights_of(nn.Sequential(layer, layer))) == {"0.weight", "0.bias"}
