"""Members that share a network: which rows are whose, and what they begin with."""

import pytest
import torch

from poise._random import Key
from poise.nn import MLP, Linear, MemberAdapter, MemberHeads, Structure
from poise.surgery import weights_of

STRUCTURE = Structure(width=6, depth=2, activation="tanh", num_members=3, input_scale=True)


def make_rows(rows=5, columns=4):
    return torch.randn(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_a_network_of_members_is_a_network_for_each_of_them():
    network, x = MLP(4, 2, structure=STRUCTURE, key=Key(0)).double(), make_rows()
    found = network(x)
    assert found.shape == (5, 3, 2)
    for k in range(3):
        y = x * network.members.weight[k]
        for block in (network.block0, network.block1):
            y = block(y)
        rows = slice(2 * k, 2 * k + 2)
        torch.testing.assert_close(found[:, k], y @ network.output.weight[rows].T + network.output.bias[rows])


def test_members_begin_near_each_other_with_heads_of_their_own():
    layer = MemberAdapter(500, num_members=4, key=Key(0))
    assert float(layer.weight.detach().mean()) == pytest.approx(1, abs=0.02)
    assert float(layer.weight.detach().std()) == pytest.approx(0.25, rel=0.05)
    assert torch.equal(MemberAdapter(5, num_members=4, spread=0.0).weight, torch.ones(4, 5))
    assert torch.equal(layer.weight, MemberAdapter(500, num_members=4, key=Key(0)).weight)
    heads = MemberHeads(25, 2, num_members=3, key=Key(0))
    assert float(heads.weight.detach().abs().max()) == pytest.approx(0.2, rel=0.1)
    assert len({tuple(row) for row in heads.weight.tolist()}) == 6


def test_one_member_is_the_plain_network():
    one, plain = (MLP(4, 2, structure=Structure(6, 2, num_members=1), key=Key(0)) for _ in range(2))
    assert type(one.output) is Linear
    assert list(dict(one.named_children())) == ["block0", "block1", "output"]
    assert torch.equal(one(make_rows().float()), plain(make_rows().float()))


def test_roles_of_what_members_have():
    roles = {name: one.role for name, one in weights_of(MLP(4, 2, structure=STRUCTURE)).items()}
    assert roles["members.weight"] == roles["scale.weight"] == "scale"
    assert roles["output.weight"] == "kernel"
    assert roles["output.bias"] == "bias"


def test_gradients():
    network, x = MLP(4, 2, structure=STRUCTURE, key=Key(0)).double(), make_rows().requires_grad_()
    names, values = zip(*network.named_parameters(), strict=True)

    def outputs(x, *values):
        return torch.func.functional_call(network, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(outputs, (x, *values))
