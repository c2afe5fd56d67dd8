"""The base of random layers, by a layer made for the test."""

import torch
from torch import nn

from poise._random import Key
from poise.nn import Stochastic, assign_keys, set_step
from poise.nn._stochastic import fresh_key


class Spy(Stochastic):
    """Writes down the keys that it is given."""

    def __init__(self, key=None):
        super().__init__(key)
        self.seen, self.on = [], True

    def is_active(self):
        return self.on

    def perturb(self, x, key):
        self.seen.append(key)
        return x + 1


def test_each_training_pass_has_its_step_and_no_other_pass_counts():
    layer, x = Spy(Key(1)), torch.zeros(2)
    for training, on in ((True, True), (False, True), (True, False), (True, True)):
        layer.on = on
        assert torch.equal(layer.train(training)(x), x + float(training and on))
    assert layer.seen == [Key(1, 0), Key(1, 1)]
    assert layer.step == 2


def test_a_keyless_layer_takes_one_key_at_its_first_training_pass():
    layer = Spy()
    layer.eval()(torch.zeros(1))
    assert layer.key is None
    layer.train()(torch.zeros(1))
    layer(torch.zeros(1))
    assert [key.seed for key in layer.seen] == [layer.key.seed] * 2
    assert 0 <= layer.key.seed < 2**62


def test_set_step_reaches_nested_layers_and_leaves_keys():
    network = nn.Sequential(Spy(), nn.Linear(1, 1), nn.ModuleDict({"inner": Spy()}))
    assign_keys(network, Key(2))
    set_step(network, 41)
    spies = [layer for layer in network.modules() if isinstance(layer, Spy)]
    assert [layer.step for layer in spies] == [41, 41]
    assert [layer.key for layer in spies] == [Key(2).stream("mask", "0"), Key(2).stream("mask", "2.inner")]


def test_fresh_keys_follow_torch():
    torch.manual_seed(0)
    one = fresh_key()
    assert fresh_key() != one
    torch.manual_seed(0)
    assert fresh_key() == one
