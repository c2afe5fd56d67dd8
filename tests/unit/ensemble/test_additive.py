"""Additive losses: residuals are gradients, steps are minima, the base is the best constant."""

import pytest
import torch

from poise.ensemble._additive import AdditiveLoss

from ._data import KINDS, TASKS


def make_loss(kind, num_rows=40, seed=0):
    draw = torch.Generator().manual_seed(seed)
    task = TASKS[kind]
    values = torch.randint(0, max(2, task.num_outputs), (num_rows,), generator=draw).double()
    if kind == "regression":
        values = torch.randn(num_rows, generator=draw, dtype=torch.float64)
    weight = torch.rand(num_rows, generator=draw, dtype=torch.float64) + 0.1
    outputs = torch.randn(num_rows, task.num_outputs, generator=draw, dtype=torch.float64)
    return AdditiveLoss(task, task.targets(values), weight), outputs, draw


@pytest.mark.parametrize("kind", KINDS)
def test_residuals_are_the_negative_gradient(kind):
    loss, outputs, _ = make_loss(kind)
    outputs.requires_grad_()
    total = (loss.task.row_losses(outputs, loss.targets)).sum()
    (gradient,) = torch.autograd.grad(total, outputs)
    factor = 2 if kind == "regression" else 1
    torch.testing.assert_close(loss.residuals(outputs.detach()) * factor, -gradient)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_the_step_is_where_a_fine_grid_has_its_minimum(kind, seed):
    loss, outputs, draw = make_loss(kind, seed=seed)
    noise = torch.randn(outputs.shape, generator=draw, dtype=torch.float64)
    direction = loss.residuals(outputs) + 0.3 * noise
    step = loss.best_step(outputs, direction)
    grid = torch.linspace(0, 10, 4001, dtype=torch.float64).tolist()
    values = [loss.value(outputs + one * direction) for one in grid]
    assert step == pytest.approx(grid[values.index(min(values))], abs=0.0026)
    assert loss.value(outputs + step * direction) <= min(values) * (1 + 1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_direction_uphill_gives_no_step(kind):
    loss, outputs, _ = make_loss(kind)
    assert loss.best_step(outputs, -loss.residuals(outputs)) == pytest.approx(0, abs=1e-5)
    assert loss.best_step(outputs, torch.zeros_like(outputs)) == pytest.approx(0, abs=1e-5)


def test_rows_that_can_be_told_apart_for_good_give_the_longest_step():
    loss, _, _ = make_loss("binary")
    outputs = torch.zeros_like(loss.targets)
    assert loss.best_step(outputs, 2 * loss.targets - 1) == pytest.approx(10, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_no_constant_is_much_better_than_the_base(kind):
    loss, outputs, _ = make_loss(kind, num_rows=4000)
    base = loss.base().repeat(4000, 1)
    for output in range(outputs.shape[1]):
        for shift in (-0.1, 0.1):
            other = base.clone()
            other[:, output] += shift
            assert loss.value(base) < loss.value(other)


def test_the_base_is_finite_where_a_class_is_absent():
    loss, _, _ = make_loss("multiclass")
    loss.targets[:] = torch.tensor([1.0, 0, 0], dtype=torch.float64)
    assert torch.isfinite(loss.base()).all()


def test_taking_rows():
    loss, outputs, _ = make_loss("multiclass")
    rows = torch.tensor([3, 5, 8])
    part = loss.take(rows)
    expected = (loss.task.row_losses(outputs, loss.targets) * loss.weight)[rows].sum() / loss.weight[rows].sum()
    assert part.value(outputs[rows]) == pytest.approx(float(expected))
