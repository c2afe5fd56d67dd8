"""Losses: formulas, gradients, extreme logits, and linearity in the target."""

import math

import pytest
import torch

from poise.functional.losses import binary_cross_entropy, cross_entropy, squared_error


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_values_by_hand():
    three = math.log(3)
    column = torch.tensor([[0.0], [three], [three]], dtype=torch.float64)
    targets = torch.tensor([[1.0], [1.0], [0.25]], dtype=torch.float64)
    expected = torch.tensor([math.log(2), math.log(4 / 3), math.log(4) - three / 4], dtype=torch.float64)
    torch.testing.assert_close(binary_cross_entropy(column, targets), expected)
    logits = torch.tensor([[0.0, three], [three, three]], dtype=torch.float64)
    soft = torch.tensor([[0.5, 0.5], [1.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([math.log(4) - three / 2, math.log(2)], dtype=torch.float64)
    torch.testing.assert_close(cross_entropy(logits, soft), expected)
    expected = torch.tensor([1.0, (three - 1) ** 2, (three - 0.25) ** 2], dtype=torch.float64)
    torch.testing.assert_close(squared_error(column, targets), expected)


def test_two_classes_are_one_logit():
    z, t = randn(9, 1), torch.rand(9, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    both = cross_entropy(torch.cat((torch.zeros_like(z), z), 1), torch.cat((1 - t, t), 1))
    torch.testing.assert_close(binary_cross_entropy(z, t), both)


@pytest.mark.parametrize("loss", [binary_cross_entropy, cross_entropy])
def test_cross_entropies_are_linear_in_the_target(loss):
    columns = 1 if loss is binary_cross_entropy else 3
    z, a, b = randn(5, columns), randn(5, columns, seed=1).softmax(1), randn(5, columns, seed=2).softmax(1)
    mixed = loss(z, 0.3 * a + 0.7 * b)
    torch.testing.assert_close(mixed, 0.3 * loss(z, a) + 0.7 * loss(z, b))


@pytest.mark.parametrize("loss", [binary_cross_entropy, cross_entropy, squared_error])
def test_gradients(loss):
    columns = 3 if loss is cross_entropy else 1
    targets = torch.rand(4, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda z: loss(z, targets), randn(4, columns).requires_grad_())
    assert loss(randn(4, columns), targets).shape == (4,)
    assert loss(randn(0, columns), targets[:0]).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_give_finite_losses_and_gradients(dtype):
    z = torch.tensor([[1e4], [-1e4]], dtype=dtype, requires_grad=True)
    loss = binary_cross_entropy(z, torch.tensor([[0.0], [0.0]], dtype=dtype))
    assert loss.tolist() == [1e4, 0.0]
    (grad,) = torch.autograd.grad(loss.sum(), z)
    assert grad.flatten().tolist() == [1.0, 0.0]
    logits = torch.tensor([[1e4, -1e4]], dtype=dtype)
    assert cross_entropy(logits, torch.tensor([[0.0, 1.0]], dtype=dtype)).item() == 2e4
