"""Stacks of modules and their random numbers: the same as each module by itself."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from poise import nn as layers
from poise._errors import ConfigError
from poise._random import Key
from poise.fleet.stacked import Stack
from poise.fleet.stacked._noise import Draws, draw
from poise.nn import assign_keys


def mlp(seed):
    return nn.Sequential(
        layers.GaussianNoise(std=0.1 * seed), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(),
        layers.AlphaDropout(p=0.1 * seed), layers.Linear(5, 3),
    )  # fmt: skip


def conv(seed):
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2), nn.BatchNorm2d(4), nn.ReLU(), layers.DropPath(p=0.1 * seed),
        layers.Dropout(p=0.5 - 0.1 * seed), nn.Flatten(), nn.LayerNorm(8), nn.Linear(8, 3),
    )  # fmt: skip


class Twice(nn.Module):
    """The same layers, weights and random numbers two times."""

    def __init__(self, seed):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(6, 6), layers.Dropout(p=0.2 * seed))
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        return self.last(self.inner(self.inner(x)))


MAKERS = pytest.mark.parametrize("make", [mlp, conv, Twice])


def some(make, number=4):
    torch.manual_seed(0)
    modules = [make(seed).double() for seed in range(number)]
    for seed, module in enumerate(modules):
        assign_keys(module, Key(seed))
    return modules


def copies(modules, make):
    made = some(make, len(modules))
    for own, other in zip(made, modules, strict=True):
        own.load_state_dict(other.state_dict())
    return made


@MAKERS
def test_outputs_and_buffers_are_those_of_each_module(make):
    modules = some(make)
    expected, stack = copies(modules, make), Stack(modules)
    for training in (True, True, False):
        x = torch.randn(4, 7, 6, dtype=torch.float64)
        held, before = dict(stack.buffers), {name: buffer.clone() for name, buffer in stack.buffers.items()}
        y = stack.train(training).outputs(x)
        assert all(torch.equal(buffer, before[name]) for name, buffer in held.items())  # new ones take their place
        assert not y.requires_grad
        for variant, module in enumerate(expected):
            own = module.train(training)(x[variant])
            torch.testing.assert_close(y[variant], own, rtol=1e-12, atol=1e-12, check_stride=False)
            for name, buffer in module.named_buffers():
                torch.testing.assert_close(stack.buffers[name][variant], buffer, rtol=1e-12, atol=1e-12)


@MAKERS
def test_gradients_are_those_of_each_module(make):
    modules = some(make)
    expected, stack = copies(modules, make), Stack(modules)
    x, y = torch.randn(4, 7, 6, dtype=torch.float64), torch.randint(0, 3, (4, 7))

    def loss(network, parameters, x, y):
        return F.cross_entropy(network(x), y) + 0.1 * sum(one.square().sum() for one in parameters.values())

    losses, gradients = stack.gradients(loss, x, y)
    for variant, module in enumerate(expected):
        own = loss(module, dict(module.named_parameters()), x[variant], y[variant])
        own.backward()
        torch.testing.assert_close(losses[variant], own.detach(), rtol=1e-12, atol=0)
        for name, gradient in stack.split(gradients[variant]).items():
            torch.testing.assert_close(gradient, module.get_parameter(name).grad, rtol=1e-10, atol=1e-12)


def test_a_fused_stack_computes_the_same():
    def make(seed):
        p = 0.1 * seed
        return nn.Sequential(
            nn.Linear(6, 5), layers.BatchNorm(5), nn.ReLU(), layers.Dropout(p=p), nn.Linear(5, 5), layers.LayerNorm(5),
            nn.GELU(), nn.Linear(5, 5), nn.SiLU(), layers.Dropout(p=p), nn.Linear(5, 5), layers.BatchNorm(5),
            nn.Linear(5, 3), layers.BatchNorm(3, ghost_size=2), nn.Tanh(),
        )  # fmt: skip

    modules = some(make)
    plain, fused = Stack(copies(modules, make)), Stack(modules)
    fused.fuse()
    assert fused.template.state_dict().keys() == plain.template.state_dict().keys()
    x = torch.randn(4, 7, 6, dtype=torch.float64)
    for _ in range(2):
        made = [stack.gradients(lambda network, _, x: network(x).square().mean(), x) for stack in (plain, fused)]
        for one, other in zip(*made, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)
    fused.buffers = plain.buffers
    torch.testing.assert_close(plain.eval().outputs(x), fused.eval().outputs(x), rtol=1e-12, atol=1e-12)


def test_variants_are_loaded_stored_and_taken():
    modules = some(mlp)
    stack, new = Stack(modules[:3]), modules[3]
    stack.load(1, new)
    stack.take([1, 0, 1])
    for module in modules:
        nn.init.zeros_(module[1].weight)
    again = some(mlp)
    for variant, source in enumerate((3, 0, 3)):
        stack.store(variant, modules[variant])
        for own, other in zip(modules[variant].state_dict().values(), again[source].state_dict().values(), strict=True):
            assert torch.equal(own, other)
        assert stack.layers[variant][0].std == pytest.approx(0.1 * source)


def test_modules_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="at least one"):
        Stack([])
    for other in (nn.Linear(3, 3), nn.Linear(3, 2, bias=False), nn.Linear(3, 2).double(), nn.Linear(3, 2).eval()):
        with pytest.raises(ConfigError, match="module 1 differs"):
            Stack([nn.Linear(3, 2), other])
    with pytest.raises(ConfigError, match="module 1 differs"):
        Stack([nn.LeakyReLU(0.1), nn.LeakyReLU(0.2)])
    with pytest.raises(ConfigError, match=r"layer 1 \(Dropout\)"):
        Stack([nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5))])
    with pytest.raises(ConfigError, match="one dtype"):
        Stack([nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2).double())])


# Random numbers


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("layer", "strengths"),
    [
        (layers.Dropout(), (0.5, 0.0, 0.1)),
        (layers.DropPath(), (0.3, 0.2, 0.0)),
        (layers.GaussianNoise(), (1.0, 0.2, 0.0)),
    ],
)
def test_numbers_of_a_stack_are_those_of_each_key(layer, strengths, dtype):
    keys, shape = [Key(2**63 + 1, 5), Key(7, 2**40), Key(1)], torch.Size((9, 5))
    draws = Draws(
        np.array([key.seed for key in keys], dtype=np.uint64),
        np.array([key.step for key in keys], dtype=np.uint64),
        np.array(strengths),
    )
    passes = draw(layer, draws, [(shape, dtype), (shape, dtype)], torch.device("cpu"), named=False)
    neutral = torch.zeros(shape) if layer.draws == "normal" else torch.ones(layer.noise_shape(shape))
    for number, (noise, given) in enumerate(passes):
        assert given.tolist() == list(strengths)
        for variant, (key, strength) in enumerate(zip(keys, strengths, strict=True)):
            setattr(layer, "std" if layer.draws == "normal" else "p", strength)
            expected = layer.noise(shape, key.at(key.step + number), dtype) if strength else neutral.to(dtype)
            assert torch.equal(noise[variant], expected)


@MAKERS
def test_what_variants_share_needs_no_axis_of_them(make):
    x, y = torch.randn(8, 6).double(), torch.randn(8, 3).double()
    scales = torch.arange(1.0, 5.0).double()

    def loss(network, _, x, y, scale):
        return scale * F.mse_loss(network(x), y)

    modules = some(make)
    shared = Stack(copies(modules, make)).gradients(loss, x, y, scales, shared=2)
    repeated = Stack(copies(modules, make)).gradients(loss, x.expand(4, 8, 6), y.expand(4, 8, 3), scales)
    for one, other in zip(shared, repeated, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-14)
