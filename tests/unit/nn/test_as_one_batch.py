"""Micro-batches give outputs, statistics and gradients of the big batch, or say why they cannot."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from poise._errors import ConfigError, DataError
from poise._random import Key
from poise.nn import BatchNorm, Dropout, backward_as_one_batch


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Noise(nn.Module):
    """Adds what torch's generator draws and remembers it, or adds what it is given."""

    def __init__(self):
        super().__init__()
        self.seen, self.given = [], None

    def forward(self, x):
        noise = torch.randn_like(x) if self.given is None else self.given
        self.seen.append(noise.detach())
        return x + noise


class Twice(nn.Module):
    """One normalization that is called twice, a branch, an unused layer."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last, self.idle = nn.Linear(4, 4), BatchNorm(4), nn.Linear(4, 2), BatchNorm(4)

    def forward(self, x):
        x = torch.tanh(self.norm(self.first(x)))
        return self.last(x + self.norm(self.first(x)))


def deep():
    return nn.Sequential(
        nn.Linear(4, 5), BatchNorm(5), nn.Tanh(), nn.Linear(5, 6), BatchNorm(6, affine=False), nn.Sigmoid(),
        nn.Linear(6, 5), BatchNorm(5, momentum=0.5, accumulate=3), nn.Linear(5, 2),
    )  # fmt: skip


def images():
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2, padding=1), BatchNorm(3), nn.ReLU(), nn.Conv2d(3, 2, 2),
        BatchNorm(2), nn.Flatten(),
    )  # fmt: skip


def make(kind, seed=0):
    torch.manual_seed(seed)
    return kind().double().train()


def loss(model, rows):
    return model(rows).sin().sum() / 7


def gradients(model):
    return {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("kind", [deep, images, Twice])
@pytest.mark.parametrize("sizes", [[5, 5, 4], [8, 1, 5], [14]])
def test_all_is_as_in_one_big_batch(kind, sizes):
    model, big, x = make(kind), make(kind), randn(14, 4)
    for layer in big.modules():
        if isinstance(layer, BatchNorm):
            layer.accumulate = 1
    for _ in range(2):
        total = backward_as_one_batch(model, x.split(sizes), loss)
        expected = loss(big, x)
        expected.backward()
        torch.testing.assert_close(total, expected.detach(), rtol=1e-10, atol=1e-10)
    found, whole = gradients(model), gradients(big)
    assert found.keys() == whole.keys()
    for name in whole:
        torch.testing.assert_close(found[name], whole[name], rtol=1e-9, atol=1e-9)
    for one, other in zip(model.buffers(), big.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert all(layer.substitute is None for layer in model.modules() if isinstance(layer, BatchNorm))


def test_without_the_gradient_of_statistics_they_are_constants():
    model, twin, x = make(deep), make(deep), randn(14, 4)
    total = backward_as_one_batch(model, x.split(5), loss, through_statistics=False)

    def constant(layer, values):
        mean, var = values.detach().mean(0), values.detach().var(0, correction=0)
        return nn.functional.batch_norm(values, mean, var, layer.weight, layer.bias, eps=layer.eps)

    for layer in twin.modules():
        if isinstance(layer, BatchNorm):
            layer.substitute = constant
    expected = loss(twin, x)
    expected.backward()
    torch.testing.assert_close(total, expected.detach())
    for name, grad in gradients(twin).items():
        torch.testing.assert_close(gradients(model)[name], grad)


def test_every_pass_draws_the_same_and_the_next_step_draws_anew():
    torch.manual_seed(0)
    noise, drop = Noise(), Dropout(p=0.5, key=Key(0))
    model = nn.Sequential(nn.Linear(4, 5), noise, BatchNorm(5), drop, nn.Linear(5, 3), BatchNorm(3)).double()
    twin, x = copy.deepcopy(model), randn(12, 4)
    parts = x.split([5, 5, 2])
    total = backward_as_one_batch(model, parts, loss)

    drawn = noise.seen[:3]
    assert not torch.equal(drawn[0], drawn[1])
    assert all(any(torch.equal(one, other) for other in drawn if len(one) == len(other)) for one in noise.seen)
    assert drop.step == 3
    masks = [Key(0).at(step).keep_mask(len(part), 5, p=0.5, dtype=x.dtype) for step, part in enumerate(parts)]
    twin[1].given = torch.cat(drawn)
    hidden = torch.cat(masks) * twin[2](twin[1](twin[0](x)))
    expected = loss(twin[4:], hidden)
    expected.backward()
    torch.testing.assert_close(total, expected.detach())
    torch.testing.assert_close(gradients(model), gradients(twin), rtol=1e-9, atol=1e-9)

    passes = len(noise.seen)
    backward_as_one_batch(model, parts, loss)
    assert not torch.equal(noise.seen[passes], drawn[0])
    assert drop.step == 6


def test_frozen_layers_and_eval_mode_may_be_any():
    model = nn.Sequential(nn.Linear(4, 3), BatchNorm(3, ghost_size=2), nn.BatchNorm1d(3).eval(), BatchNorm(3)).double()
    model[1].frozen = True
    twin, x = copy.deepcopy(model), randn(9, 4)
    backward_as_one_batch(model, x.split(4), loss)
    loss(twin, x).backward()
    torch.testing.assert_close(gradients(model), gradients(twin))


def test_half_precision():
    model, x = nn.Sequential(nn.Linear(4, 3), BatchNorm(3)), randn(16, 4).float()
    twin = copy.deepcopy(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        backward_as_one_batch(model, x.split(4), lambda network, rows: network(rows).float().sin().sum())
    twin(x).sin().sum().backward()
    torch.testing.assert_close(model[1].weight.grad, twin[1].weight.grad, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.BatchNorm1d(4), "Convert it"),
        (BatchNorm(4, ghost_size=2), "ghosts"),
        (BatchNorm(4, num_domains=2), "domains"),
    ],
)  # fmt: skip
def test_layers_that_cannot(layer, message):
    with pytest.raises(ConfigError, match=message) as caught:
        backward_as_one_batch(nn.Sequential(layer), [torch.randn(4, 4)], loss)
    assert caught.value.where == "module '0'"


def test_batches_that_cannot():
    with pytest.raises(DataError, match="it is empty"):
        backward_as_one_batch(BatchNorm(3), [], loss)

    model = nn.ModuleList([BatchNorm(3), BatchNorm(3)])
    with pytest.raises(DataError, match="different ways"):
        backward_as_one_batch(model, [0, 1], lambda network, which: network[which](torch.randn(4, 3)).sum())
    count = iter(range(100))
    with pytest.raises(DataError, match="the same way"):
        backward_as_one_batch(model, [0], lambda network, _: network[next(count) % 2](torch.randn(4, 3)).sum())
    assert all(layer.substitute is None and layer.num_batches_tracked == 0 for layer in model)


def test_checkpointing_is_refused():
    model = nn.Sequential(nn.Linear(3, 3), BatchNorm(3))
    with pytest.raises(ConfigError, match="checkpointing"):
        backward_as_one_batch(
            model, [torch.randn(4, 3)], lambda network, rows: checkpoint(network, rows, use_reentrant=False).sum()
        )
